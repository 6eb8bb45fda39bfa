"""A toy hospital: procedural scans of several lesion kinds, with patients, noise, a rare class and lesion masks.

Small enough to train on in a minute, hard enough that precision matters: lesions are faint, vessels look like
small ones, and a patient's scans share their anatomy, so that a split by image would leak. It can be spoilt on
purpose (leaks, torn files, contradicting labels) to show what `check` finds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from quantward.core.errors import Refused, UsageError
from quantward.core.progress import Track, silent
from quantward.core.store import atomic, read_json, write_json
from quantward.core.values import ImageArray
from quantward.data.table import write_table

KINDS = ("healthy", "nodule", "ring", "spiculated", "cyst", "cluster")
RARE = 0.07
"""Share of the last class among the patients; the others are drawn 4 : 3.5 : 3 : ..."""

Plane = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Patient:
    """One body: its outline, texture and lesion, which all of this patient's scans share."""

    name: str
    kind: str
    sex: str
    scans: int
    seed: tuple[int, int]


def make_toy(
    folder: Path | str,
    *,
    n: int = 1500,
    classes: int = 4,
    size: tuple[int, int] = (64, 96),
    seed: int = 0,
    leaks: int = 0,
    truncated: int = 0,
    conflicts: int = 0,
    track: Track = silent,
) -> Path:
    """Write `n` grey PNG scans of the first `classes` kinds into class folders of `folder`, and `images.csv`.

    Sides are drawn from `size` (pixels, inclusive). The CSV has path, label, group (patient), sex and mask (the
    lesion's outline under `masks/`). `leaks` > 0 adds a published split and copies that many training scans into its
    test part under invented patients; `truncated` tears files; `conflicts` files scans a second time under another
    label. The same arguments give the same bytes, and a folder that holds them already is left as it is.

    Raises UsageError for numbers that make no sense, Refused for a folder with other content.
    """
    if not 2 <= classes <= len(KINDS) or n < 8 * classes or not 32 <= size[0] <= size[1] <= 512:
        raise UsageError(
            f"Expected 2 to {len(KINDS)} classes, at least 8 images a class and sides from 32 to 512; "
            f"got {classes}, {n} and {size}. Mend them."
        )
    home = Path(folder)
    recipe = {"toy": 1, "n": n, "classes": classes, "size": list(size), "seed": seed, "leaks": leaks,
              "truncated": truncated, "conflicts": conflicts}  # fmt: skip
    if home.exists() and any(home.iterdir()):
        if not (home / "toy.json").exists() or read_json(home / "toy.json") != recipe:
            raise Refused(f"Expected an empty folder for the toy set; {home} holds other files. Name another folder.")
        if (home / "images.csv").exists():
            return home
    write_json(home / "toy.json", recipe)

    chance = np.random.default_rng([seed, 0])
    patients = _patients(n, KINDS[:classes], chance)
    test = _test_patients(patients, chance) if leaks else None
    rows = [row for patient in track(patients, "drawing scans") for row in _draw(home, patient, size, test)]
    _spoil(home, rows, chance, leaks, truncated, conflicts)
    columns = ["path", "label", *(["split"] if leaks else []), "group", "sex", "mask"]
    write_table(home / "images.csv", rows, columns)
    return home


def _patients(n: int, kinds: tuple[str, ...], chance: np.random.Generator) -> list[Patient]:
    """Patients with one to four scans each, `n` scans in all; every kind appears, the last one rarely."""
    common = np.linspace(4, 2.5, len(kinds) - 1)
    weights = np.append(common / common.sum() * (1 - RARE), RARE)
    found: list[Patient] = []
    left = n
    while left:
        number = len(found)
        scans = min(left, int(chance.integers(1, 5)))
        # The first ones are dealt in turn, so that even a tiny set has every kind in several patients.
        k = number % len(kinds) if number < 3 * len(kinds) else int(chance.choice(len(kinds), p=weights))
        found.append(Patient(f"p{number:04d}", kinds[k], "FM"[int(chance.integers(2))], scans, (number, left)))
        left -= scans
    salt = int(chance.integers(1 << 31))
    return [Patient(p.name, p.kind, p.sex, p.scans, (salt, p.seed[0])) for p in found]


def _test_patients(patients: list[Patient], chance: np.random.Generator) -> set[str]:
    names = [patient.name for patient in patients]
    return set(chance.choice(names, max(1, len(names) // 5), replace=False).tolist())


def _draw(home: Path, patient: Patient, size: tuple[int, int], test: set[str] | None) -> list[dict[str, str]]:
    """All scans of one patient, written to disk, and their rows."""
    body = np.random.default_rng(patient.seed)
    side = int(body.integers(size[0], size[1] + 1))
    anatomy = _Anatomy(body, side, patient.sex)
    rows = []
    for scan in range(patient.scans):
        chance = np.random.default_rng([*patient.seed, scan])
        image, mask = anatomy.scan(patient.kind, chance)
        path = f"{patient.kind}/{patient.name}_{scan}.png"
        _save(home / path, image)
        _save(home / "masks" / path, mask)
        split = "" if test is None else "test" if patient.name in test else "train"
        rows.append({"path": path, "label": patient.kind, "split": split, "group": patient.name,
                     "sex": patient.sex, "mask": f"masks/{path}"})  # fmt: skip
    return rows


def _save(path: Path, image: ImageArray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, "PNG", compress_level=1)


class _Anatomy:
    """What one patient's scans have in common, on a grid of side x side pixels with coordinates from -1 to 1."""

    def __init__(self, chance: np.random.Generator, side: int, sex: str) -> None:
        self.side = side
        line = np.linspace(-1, 1, side, dtype=np.float32)
        self.y, self.x = np.meshgrid(line, line, indexing="ij")
        grow = 1.04 if sex == "M" else 0.98
        self.axes = (grow * chance.uniform((0.62, 0.74), (0.76, 0.88))).tolist()
        self.tilt = float(chance.uniform(-0.25, 0.25))
        self.tissue = _smooth(chance, side, 10)
        self.fine = _smooth(chance, side, side // 4)
        self.cavity = chance.uniform((0.08, 0.18), (0.16, 0.34)).tolist()
        self.apart = float(chance.uniform(0.13, 0.2))
        self.vessels = chance.uniform((-0.6, -0.6, 0.03), (0.6, 0.6, 0.055), (int(chance.integers(3, 8)), 3)).tolist()
        self.radius = float(chance.uniform(0.14, 0.25))
        angle, far = float(chance.uniform(0, 2 * math.pi)), math.sqrt(chance.uniform(0.08, 0.4))
        self.lesion = (far * self.axes[0] * math.cos(angle), far * self.axes[1] * math.sin(angle))
        self.contrast = float(chance.uniform(0.13, 0.45))
        self.phase, self.spikes = float(chance.uniform(0, 2 * math.pi)), int(chance.integers(5, 8))

    def scan(self, kind: str, chance: np.random.Generator) -> tuple[ImageArray, ImageArray]:
        """One scan and its lesion mask, both uint8, (side, side)."""
        turn = self.tilt + float(chance.normal(0, 0.05))
        dx, dy = chance.normal(0, 0.03, 2).tolist()
        cos, sin = math.cos(turn), math.sin(turn)
        x = (self.x - dx) * cos + (self.y - dy) * sin
        y = (self.y - dy) * cos - (self.x - dx) * sin
        rho = np.hypot(x / self.axes[0], y / self.axes[1])
        inside = _edge(1 - rho, 0.03)
        image = inside * (0.40 + 0.045 * self.tissue + 0.025 * self.fine)
        image += 0.35 * np.exp(-(((rho - 1.02) / 0.045) ** 2))
        for sign in (-1, 1):
            hollow = np.hypot((x - sign * self.apart) / self.cavity[0], y / self.cavity[1])
            image -= 0.2 * _edge(1 - hollow, 0.15)
        for vx, vy, width in self.vessels:
            image += 0.2 * inside * np.exp(-(((x - vx) ** 2 + (y - vy) ** 2) / width**2))

        shift = chance.normal(0, 0.02, 2).tolist()
        shape, mask = self._lesion(kind, x - self.lesion[0] - shift[0], y - self.lesion[1] - shift[1])
        image += self.contrast * float(chance.uniform(0.8, 1.2)) * shape
        field = 1 + 0.15 * _smooth(chance, self.side, 3)
        grain = 0.05 * chance.standard_normal(image.shape, np.float32)
        noisy = field * image * float(chance.uniform(0.85, 1.15)) + grain
        return (
            np.rint(255 * np.clip(noisy, 0, 1)).astype(np.uint8),
            (255 * (mask & (rho < 1))).astype(np.uint8),
        )

    def _lesion(self, kind: str, x: Plane, y: Plane) -> tuple[Plane, npt.NDArray[np.bool_]]:
        """Brightness (about -1 to 1) and extent of a lesion centred at x = y = 0."""
        r, d = self.radius, np.hypot(x, y)
        if kind == "healthy":
            return np.zeros_like(x), np.zeros(x.shape, bool)
        if kind == "ring":
            return np.exp(-(((d - 0.85 * r) / (0.28 * r)) ** 2)), d < 1.15 * r
        if kind == "spiculated":
            reach = r * (0.62 + 0.55 * np.abs(np.cos(self.spikes / 2 * np.arctan2(y, x) + self.phase)) ** 3)
            return _edge(reach - d, 0.02), d < reach
        if kind == "cluster":
            turns = [self.phase + k * math.pi / 2 for k in range(4)]
            spots = [np.exp(-((x - 0.7 * r * math.cos(t)) ** 2 + (y - 0.7 * r * math.sin(t)) ** 2) / (0.3 * r) ** 2)
                     for t in turns]  # fmt: skip
            return np.sum(spots, axis=0), d < 1.1 * r
        return (-1 if kind == "cyst" else 1) * _edge(r - d, 0.03), d < r


def _edge(signed: Plane, width: float) -> Plane:
    """A soft step: 0 well below zero, 1 well above."""
    return np.asarray(1 / (1 + np.exp(-np.clip(signed / (width / 2), -30, 30))))


def _smooth(chance: np.random.Generator, side: int, grid: int) -> Plane:
    """Smooth noise of about unit height: `grid` x `grid` normal numbers, enlarged."""
    coarse = Image.fromarray(chance.normal(0, 1, (grid, grid)).astype(np.float32))
    return np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), np.float32)


def _spoil(
    home: Path,
    rows: list[dict[str, str]],
    chance: np.random.Generator,
    leaks: int,
    truncated: int,
    conflicts: int,
) -> None:
    """Add the faults that were asked for; each hits other images."""
    training = [i for i, row in enumerate(rows) if row["split"] != "test"]
    if leaks + truncated + conflicts > len(training):
        raise UsageError(f"Expected at most {len(training)} faults; got more. Draw more images.")
    hit = [int(i) for i in chance.choice(training, leaks + truncated + conflicts, replace=False)]
    kinds = sorted({row["label"] for row in rows})
    for k, i in enumerate(hit[:leaks]):
        _copy(home, rows, i, f"x{k:04d}", rows[i]["label"], "test")
    for k, i in enumerate(hit[leaks : leaks + conflicts]):
        other = kinds[(kinds.index(rows[i]["label"]) + 1) % len(kinds)]
        _copy(home, rows, i, f"y{k:04d}", other, rows[i]["split"])
    for i in hit[leaks + conflicts :]:
        path = home / rows[i]["path"]
        half = path.read_bytes()[: path.stat().st_size // 2]
        with atomic(path) as temporary:
            temporary.write_bytes(half)


def _copy(home: Path, rows: list[dict[str, str]], i: int, patient: str, label: str, split: str) -> None:
    """File scan i again, re-saved so that its bytes differ though its pixels do not."""
    path = f"{label}/{patient}_0.png"
    with Image.open(home / rows[i]["path"]) as image:
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        image.save(home / path, "PNG", compress_level=9)
    rows.append({**rows[i], "path": path, "label": label, "split": split, "group": patient})

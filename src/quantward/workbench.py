"""The wiring between rooms: open what a person names, run it, and hand the values on. One function a verb.

Rooms of one floor do not know each other; here is where a dataset meets a training stage, a Plan meets its target,
and a deployed file meets its images. The same functions are the Python API.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from quantward.core.apart import Apart
from quantward.core.contracts import Batch, Context, Session, Trained
from quantward.core.errors import Refused, UsageError
from quantward.core.preprocess import normalise
from quantward.core.progress import Track, silent
from quantward.core.registry import Registry, spelling
from quantward.core.store import decode, digest_arrays, digest_file, digest_folder, plain, read_json, write_json
from quantward.core.values import (
    Dataset,
    FloatArray,
    Fold,
    ImageArray,
    IntArray,
    Plan,
    Predictions,
    Preprocess,
    Variant,
)
from quantward.data import cache, with_classes
from quantward.incoming import NOTHING, Told, is_plain, plain_variant, require_card

RECIPES = Registry("recipe", "quantward.quantize.recipes")
TARGETS = Registry("target", "quantward.targets")
RUNTIMES = Registry("runtime", "quantward.runtimes")

BATCH = 16
"""Images per call wherever latency is not the question."""


def softmax(logits: FloatArray) -> FloatArray:
    """Probabilities from logits, rows summing to 1, in float64.

    >>> softmax(np.array([[0.0, 0.0]])).tolist()
    [[0.5, 0.5]]
    """
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    powers = np.exp(shifted)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def network_inputs(
    pixels: ImageArray, indices: IntArray | Sequence[int], how: Preprocess, size: int = BATCH
) -> Iterator[Batch]:
    """Normalised batches (<= size, 3, side, side) of the cached images at `indices`, in order."""
    rows = np.asarray(indices, np.int64)
    for start in range(0, len(rows), size):
        yield normalise(pixels[rows[start : start + size]], how)


def logits_of(session: Session, batches: Iterable[Batch]) -> FloatArray:
    """All logits of a session over some batches, (n, classes)."""
    return np.concatenate([session(batch) for batch in batches])


def predictions_of(
    session: Session,
    dataset: Dataset,
    indices: IntArray,
    pixels: ImageArray,
    how: Preprocess,
    source: str,
    track: Track = silent,
) -> Predictions:
    """What a session says of the images at `indices`.

    Raises Refused where a probability is not finite: such a candidate has failed, and no metric would say so.
    """
    steps = track(network_inputs(pixels, indices, how), f"run {source}", -(-len(indices) // BATCH))
    probabilities = softmax(logits_of(session, steps))
    if not np.isfinite(probabilities).all():
        bad = int((~np.isfinite(probabilities).all(axis=1)).sum())
        raise Refused(
            f"Expected finite outputs from {source}; {bad} of {len(indices)} images gave NaN or infinity. "
            "Look for overflow in its audit, or choose a wider precision."
        )
    if probabilities.shape[1] != len(dataset.classes):
        raise Refused(
            f"Expected {len(dataset.classes)} outputs for the classes {', '.join(dataset.classes)}; {source} gives "
            f"{probabilities.shape[1]}. Use the model that was trained on these classes."
        )
    groups = None if dataset.groups is None else tuple(dataset.groups[i] for i in indices)
    return Predictions(
        ids=tuple(dataset.ids[i] for i in indices),
        truth=np.asarray(dataset.labels)[indices],
        probabilities=probabilities,
        classes=dataset.classes,
        source=source,
        groups=groups,
    )


def in_model_order(dataset: Dataset, classes: Sequence[str]) -> Dataset:
    """The dataset with labels counted in the model's class order.

    Raises Refused where it holds a class that the model does not know.
    """
    return dataset if tuple(classes) == dataset.classes else with_classes(dataset, classes)


def calibration(
    pixels: ImageArray, fold: Fold, how: Preprocess, *, seed: int = 0, track: Track = silent, **lent: Any
) -> Context:
    """The Context of a recipe: its images are the fold's `calibrate` images, in an order drawn from `seed`."""
    order = np.random.default_rng(seed).permutation(np.asarray(fold.calibrate))

    def images(n: int | None) -> Iterator[Batch]:
        if n is not None and n > len(order):
            raise UsageError(
                f"Expected samples of at most {len(order)}, the images of the calibrate role; got {n}. Ask for fewer."
            )
        chosen = order if n is None else order[:n]
        steps = network_inputs(pixels, np.sort(chosen), how)
        yield from track(steps, "calibrate", -(-len(chosen) // BATCH))

    return Context(images=images, seed=seed, progress=track, **lent)


@dataclass(frozen=True, eq=False)
class Lessons:
    """The training that a recipe may ask for (`core.contracts.Fit`): on the fold's `train` images, stopped by `tune`.

    Always in float32: half precision would round values that are rounded already, and not to the file's grid. `asked`
    spells the training stage whose loss is wanted; `name` is the dataset's.
    """

    pixels: ImageArray = field(repr=False)
    labels: IntArray = field(repr=False)
    fold: Fold = field(repr=False)
    classes: tuple[str, ...]
    preprocess: Preprocess
    seed: int = 0
    track: Track = silent
    asked: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        _ = self.taught  # what may not be taught is refused before anything trains

    @property
    def images(self) -> int:
        """How many images the weights see in an epoch."""
        return len(self.fold.train)

    @property
    def taught(self) -> Mapping[str, Any]:
        """The lesson and what it depends on. Raises UsageError for one that is none, Refused for one with a teacher
        that has seen this fold's test images."""
        stage = self._stage()
        return {} if stage is None else {"lesson": spelling(stage), **stage.depends(self._record())}

    def lesson(self) -> Callable[[Any, Any], Mapping[str, Any]] | None:
        """The loss of the stage that was `asked` for, new at each call; None for plain cross-entropy."""
        stage = self._stage()
        if stage is None:
            return None
        made: Callable[[Any, Any], Mapping[str, Any]] = stage.lesson(self._shown(), self._record())
        return made

    def _stage(self) -> Any:
        from quantward.train.lesson import lesson_named

        return lesson_named(self.asked) if self.asked else None

    def _shown(self) -> Any:
        from quantward.train import Images

        return Images(self.pixels, np.asarray(self.labels), np.asarray(self.fold.train), np.asarray(self.fold.tune),
                      self.classes, self.preprocess)  # fmt: skip

    def _record(self) -> dict[str, Any]:
        """Images and fold as a training stage records them: a teacher is held against that."""
        fold = self.fold
        roles = digest_arrays({"train": np.asarray(fold.train), "tune": np.asarray(fold.tune)})
        return {
            "dataset": {"name": self.name, "fingerprint": fold.dataset, "classes": self.classes},
            "fold": {"number": fold.number, "of": fold.of, "seed": fold.seed, "roles": roles},
        }

    def __call__(
        self,
        net: Any,
        loss: Callable[[Any, Any], Mapping[str, Any]],
        *,
        groups: Sequence[Mapping[str, Any]],
        epochs: int,
        batch: int,
        lr: float,
        patience: int,
        augment: str,
        folder: Path | None,
        arguments: Mapping[str, Any],
    ) -> Trained:
        """Train `net` in place by the one training loop."""
        from quantward.train import Course, fit
        from quantward.train.augment import augment_named

        images, stage = self._shown(), self._stage()
        balance = stage is not None and stage.sampling == "balanced"
        return fit(
            net,
            images.to_train(batch, augment_named(augment), self.seed, balance=balance),
            images.to_tune(),
            Course(epochs=epochs, batch=batch, lr=lr, patience=patience, precision="32"),
            loss=loss,
            seed=self.seed,
            folder=folder,
            arguments={**arguments, **self.taught, "augment": augment, "fold": self.fold.dataset},
            groups=groups,
            track=self.track,
        )


def lessons(
    dataset: Dataset,
    pixels: ImageArray,
    fold: Fold,
    parent: Plan,
    *,
    lesson: str = "",
    seed: int = 0,
    track: Track = silent,
) -> Lessons:
    """What `calibration` lends as `fit` to recipes that train the float Plan `parent` further; `lesson` spells the
    training stage whose loss they train for, none for plain cross-entropy."""
    labels = np.asarray(in_model_order(dataset, parent.classes).labels)
    return Lessons(pixels, labels, fold, parent.classes, parent.preprocess, seed, track, lesson, dataset.name)


def require_lesson(lesson: str, recipes: Iterable[str]) -> None:
    """Before any image is looked at: raises UsageError where a `lesson` is none, or no recipe would take it."""
    if not lesson:
        return
    from quantward.train.lesson import lesson_named

    lesson_named(lesson)
    names = list(recipes)
    if not any(RECIPES.make(name).needs == "training" for name in names):
        able = [name for name in RECIPES.names() if RECIPES.get(name).needs == "training"]
        raise UsageError(
            f"Expected a recipe that trains with the lesson {lesson!r}; got {', '.join(names)}. "
            f"Use {' or '.join(able)}, or leave --lesson out."
        )


def cached(dataset: Dataset, how: Preprocess, track: Track = silent) -> ImageArray:
    """All images of a dataset, decoded and cut: (n, size, size, 3) uint8, memory-mapped."""
    return cache(dataset, None, how, None, track)


def plan_with(recipe: str, parent: Plan, context: Context) -> Plan:
    """Apply a recipe, given by its spelling, to the float Plan."""
    made: Plan = RECIPES.make(recipe).plan(parent, context)
    return made


def write_with(target: str, plan: Plan, folder: Path) -> Variant:
    """Write a Plan for a target and put the card (`<file>.json`) that describes it beside the file."""
    variant: Variant = TARGETS.make(target).write(plan, folder)
    save_card(variant)
    return variant


def card_path(path: Path) -> Path:
    """Where the description of a deployed file lies."""
    return path.with_name(path.name + ".json")


def save_card(variant: Variant) -> None:
    """Describe a Variant beside its file; the path in the card is relative, so both can move together."""
    write_json(card_path(variant.path), {**plain(variant), "path": variant.path.name})


def open_variant(
    path: Path | str,
    told: Told = NOTHING,
    classes: Sequence[str] | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Variant:
    """A Variant from its file, its card, or a bundle folder; the file must be the one the card describes. An `.onnx`
    file without a card is fed as it is `told` and as it shows (`incoming.plain_variant`).

    Raises Refused where there is no card, or the file's hash is not the card's.
    """
    path = Path(path)
    if is_plain(path):
        return plain_variant(path, told, classes, tell)
    require_card(path, told)
    if path.is_dir():
        card = next(chain(path.glob("model.*.json"), path.parent.glob(f"{path.name}.json")), None)
        if card is None:
            raise Refused(f"Expected a bundle or a Plan folder at {path}; it has no card. Name the file itself.")
    else:
        card = path if path.suffix == ".json" else card_path(path)
    if not card.exists():
        raise Refused(
            f"Expected {card.name} beside {path.name}, saying how to feed the file; there is none. "
            "Write the file with quantward quantize."
        )
    data = read_json(card)
    file = card.parent / Path(str(data.get("path", ""))).name
    variant = decode(Variant, {**data, "path": file}, card)
    if not file.exists():
        raise Refused(f"Expected the file {file.name} beside its card {card}; there is none. Copy both.")
    found = digest_folder(file) if file.is_dir() else digest_file(file)
    if found != variant.sha256:
        raise Refused(
            f"Expected {file} to have the hash {variant.sha256[:12]} of its card; it has {found[:12]}. "
            "The file was changed: write it again."
        )
    return variant


INSIDE = ("torch-float",)
"""Runtimes opened in this process: a simulation is our own code on a library that is loaded already, which has to be
quick while a search compares it with every file, and cannot crash of a bad file as a compiler of graphs does."""


def open_session(variant: Variant, runtime: str, threads: int) -> Session:
    """Open a Variant on a runtime, in a child process: a file that crashes its runtime is a Refused with the reason.

    The Session may be closed (`close()`, or `with`), and closes itself when nobody has it any more.
    Raises UsageError where the runtime is not installed or does not read the format, Refused where it cannot open it.
    """
    chosen = RUNTIMES.make(runtime)
    absent = chosen.missing()
    if absent:
        raise UsageError(f"Expected an installed runtime; {absent}.")
    if variant.format not in chosen.formats:
        able = [name for name in RUNTIMES.names() if variant.format in RUNTIMES.make(name).formats]
        raise UsageError(
            f"Expected a runtime for {variant.format} files; {runtime!r} reads {', '.join(chosen.formats)}. "
            f"Use {' or '.join(able) or 'another target'}."
        )
    if runtime.partition(":")[0] not in INSIDE:
        return Apart(variant, runtime, threads)
    session: Session = chosen.open(variant, threads)
    return session


def runtime_for(variant: Variant, path: Path | None = None) -> str:
    """The runtime on which the bundle at `path` was judged, where it is installed; else the first installed one that
    reads the format."""
    judged = None if path is None else judged_on(path)
    if judged and RUNTIMES.make(judged).missing() is None:
        return judged
    for name in ("onnxruntime", "torch-float", *RUNTIMES.names()):
        if variant.format in RUNTIMES.make(name).formats and RUNTIMES.make(name).missing() is None:
            return name
    raise UsageError(f"Expected a runtime for {variant.format} files; none is installed. Install one.")


def judged_on(bundle: Path) -> str | None:
    """The runtime that a bundle's manifest names; None for anything that is no bundle."""
    manifest = bundle / "manifest.json"
    data = read_json(manifest) if bundle.is_dir() and manifest.exists() else None
    return str(data["runtime"]) if isinstance(data, dict) and data.get("runtime") else None


def whole(dataset: Dataset) -> IntArray:
    """The indices of all images."""
    return np.arange(len(dataset))

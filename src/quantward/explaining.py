"""Does a smaller model still look where the FP32 model looked? Maps of both on the same images, and how far they drift.

Both maps of an image are about the class that FP32 gives it, so a changed answer is told apart from a changed look.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from quantward import __version__
from quantward.core.contracts import Batch, Session
from quantward.core.errors import Refused, UsageError, suggestion
from quantward.core.preprocess import geometry
from quantward.core.progress import Track, silent
from quantward.core.store import plain, write_json
from quantward.core.values import Dataset, FloatArray, ImageArray, IntArray, Plan, Preprocess
from quantward.evaluate.proportions import paired_mean
from quantward.explain import drift
from quantward.report.gallery import Shown, write_gallery
from quantward.runs import Run, open_run, plan_run
from quantward.workbench import cached, in_model_order, network_inputs, open_session, write_with

if TYPE_CHECKING:
    from quantward.explain.gradcam import Place

METHODS = ("gradcam", "integrated-gradients", "input-gradients", "occlusion", "rise")
"""The first three take gradients of the Plan's simulation; the others ask the deployed file itself."""

MASK = "mask"
"""The attribute that names a mask's file, relative to the data's folder."""


@dataclass(frozen=True, eq=False)
class Looked:
    """One model's answers and maps: `answers` (n,), `maps` (n, s, s), `session` runs its file."""

    answers: IntArray
    maps: FloatArray
    session: Session = field(repr=False)


def explain_run(
    run: Path,
    data: Path,
    recipes: Sequence[str],
    folder: Path,
    *,
    method: str = "gradcam",
    images: int = 64,
    shown: int = 12,
    curves: bool = False,
    target: str = "onnx-cpu",
    runtime: str = "onnxruntime",
    threads: int = 1,
    seed: int = 0,
    track: Track = silent,
) -> dict[str, Any]:
    """Compare where FP32 and each of `recipes` look, on `images` test images of a RUN, evenly spaced.

    With `curves` deletion and insertion areas are measured as well; with an attribute `mask` in the data also whether
    maps point into it. Writes drift.json and drift.html, with the `shown` images whose map moved most, below `folder`
    and returns the record as plain data.
    """
    if method not in METHODS:
        raise UsageError(
            f"Expected a method out of {', '.join(METHODS)}; got {method!r}. {suggestion(method, METHODS)}"
        )
    if images < 1 or not recipes:
        raise UsageError(f"Expected at least one image and one recipe; got {images} and {len(recipes)}. Name them.")
    opened = open_run(run, data, track=track)
    plans = ((recipe, plan_run(run, recipe, data, seed=seed, track=track)) for recipe in ("fp32", *recipes))
    record, pictures = drift_of(opened, data, plans, folder, method=method, images=images, shown=shown, curves=curves,
                                target=target, runtime=runtime, threads=threads, seed=seed, track=track)  # fmt: skip
    write_json(folder / "drift.json", record)
    write_gallery(plain(record), pictures, folder / "drift.html")
    return dict(plain(record))


def drift_of(
    opened: Run,
    data: Path,
    plans: Iterable[tuple[str, Plan]],
    folder: Path,
    *,
    method: str = "gradcam",
    images: int = 64,
    shown: int = 0,
    curves: bool = False,
    target: str = "onnx-cpu",
    runtime: str = "onnxruntime",
    threads: int = 1,
    seed: int = 0,
    track: Track = silent,
) -> tuple[dict[str, Any], list[Shown]]:
    """What `explain_run` records, and the images of its gallery, for Plans (name, Plan) of a RUN that is open; the
    first of them is FP32. Their files are written below `folder`."""
    dataset = in_model_order(opened.dataset, opened.plan.classes)
    how = opened.plan.preprocess
    pixels = cached(dataset, how, track)
    test = np.asarray(opened.fold.test)
    rows = test[np.unique(np.linspace(0, len(test) - 1, min(images, len(test))).astype(np.int64))]
    inputs = np.concatenate(list(network_inputs(pixels, rows, how)))
    masks = _masks(dataset, rows, data, how)
    groups = None if dataset.groups is None else [dataset.groups[i] for i in rows]
    place = _place(opened.plan, method)
    others = iter(plans)
    name, float_plan = next(others)
    session = open_session(write_with(target, float_plan, folder / "files"), runtime, threads)
    classes = np.asarray(np.concatenate([session(inputs[i : i + 16]) for i in range(0, len(inputs), 16)]).argmax(1))
    base = _look(method, float_plan, session, inputs, classes, place, seed, track, name)
    candidates = []
    pictures: list[Shown] = []
    for recipe, plan in others:
        session = open_session(write_with(target, plan, folder / "files"), runtime, threads)
        after = _look(method, plan, session, inputs, classes, place, seed, track, recipe)
        measures = _measures(base, after, inputs, classes, masks, curves)
        candidates.append({"recipe": recipe, "measures": {k: _mean(v, groups) for k, v in measures.items()},
                           "changed": int((after.answers != base.answers).sum())})  # fmt: skip
        order = np.argsort(np.nan_to_num(measures["rank correlation"], nan=-2.0), kind="stable")[:shown]
        pictures += [_shown(recipe, i, rows, dataset, pixels, base, after, measures) for i in order.tolist()]
    record = {
        "dataset": dataset.name, "parent": opened.plan.parent, "quantward": __version__, "seed": seed,
        "method": method, "images": len(rows), "target": target, "runtime": runtime,
        "place": None if place is None else place.node, "masks": masks is not None,
        "fp32": {k: _mean(v, groups) for k, v in _own(base, inputs, classes, masks, curves).items()},
        "candidates": candidates,
    }  # fmt: skip
    return record, pictures


def _place(plan: Plan, method: str) -> Place | None:
    from quantward.explain.gradcam import feature_map

    return feature_map(plan) if method == "gradcam" else None


def _look(
    method: str, plan: Plan, session: Session, inputs: Batch, classes: IntArray, place: Place | None, seed: int,
    track: Track, name: str,
) -> Looked:  # fmt: skip
    """Answers of the file and maps of all images, a few at a time."""
    of = _mapper(method, plan, session, place, seed)
    answers, maps = [], []
    for start in track(range(0, len(inputs), 8), f"{method} of {name}", -(-len(inputs) // 8)):
        part = inputs[start : start + 8]
        answers.append(session(part).argmax(1))
        maps.append(of(part, classes[start : start + 8]))
    return Looked(np.concatenate(answers), np.concatenate(maps), session)


def _mapper(
    method: str, plan: Plan, session: Session, place: Place | None, seed: int
) -> Callable[[Batch, IntArray], FloatArray]:
    """The function (images, classes) -> maps of one model."""
    if method in ("occlusion", "rise"):
        from quantward.explain.occlusion import occlusion, rise

        if method == "rise":
            return lambda batch, classes: rise(session, batch, classes, seed=seed)
        return lambda batch, classes: occlusion(session, batch, classes)
    from quantward.explain.gradcam import gradcam
    from quantward.explain.gradients import input_gradients, integrated_gradients
    from quantward.graph.simulate import simulate

    if method == "gradcam":
        return lambda batch, classes: gradcam(plan, batch, classes, place)
    network = simulate(plan).eval().requires_grad_(False)
    gradients = input_gradients if method == "input-gradients" else integrated_gradients
    return lambda batch, classes: gradients(network, batch, classes)


def _measures(
    before: Looked, after: Looked, inputs: Batch, classes: IntArray, masks: ImageArray | None, curves: bool
) -> dict[str, FloatArray]:
    """One value an image of each measure of drift, and of the candidate's own map."""
    return {
        "rank correlation": drift.rank_correlation(before.maps, after.maps),
        "top 20 % overlap": drift.top_overlap(before.maps, after.maps),
        "SSIM": drift.structural_similarity(before.maps, after.maps),
        "centre shift": drift.centre_shift(before.maps, after.maps),
        **_own(after, inputs, classes, masks, curves),
    }


def _own(
    looked: Looked, inputs: Batch, classes: IntArray, masks: ImageArray | None, curves: bool
) -> dict[str, FloatArray]:
    """How good one model's maps are: in the mask, and by what covering their pixels does to its own answer."""
    found: dict[str, FloatArray] = {}
    if masks is not None:
        found["pointing game"] = drift.pointing(looked.maps, masks)
        found["mass in mask"] = drift.mass_inside(looked.maps, masks)
    if curves:
        found["deletion area"] = drift.deletion(looked.session, inputs, classes, looked.maps)
        found["insertion area"] = drift.insertion(looked.session, inputs, classes, looked.maps)
    return found


def _mean(values: FloatArray, groups: Sequence[str] | None) -> dict[str, Any]:
    """Mean with its 95 % interval (Student's t between patients), cut at what the measure can be (-1 or 0, and 1);
    images without a value are counted, not hidden."""
    told = np.isfinite(values)
    n = int(told.sum())
    if n == 0:
        return {"value": None, "low": None, "high": None, "n": 0, "undefined": len(values)}
    chosen = None if groups is None else [group for group, kept in zip(groups, told, strict=True) if kept]
    low, high, _ = paired_mean(values[told], chosen)
    low, high = max(low, -1.0 if values[told].min() < 0 else 0.0), min(high, 1.0)
    return {"value": float(values[told].mean()), "low": low, "high": high, "n": n, "undefined": len(values) - n}


def _masks(dataset: Dataset, rows: IntArray, data: Path, how: Preprocess) -> ImageArray | None:
    """Masks as the network would see them, (n, s, s), not 0 inside; None where the data names none.

    Raises Refused for a mask that is not there or leaves the data's folder.
    """
    if MASK not in dataset.attributes:
        return None
    home = (data if data.is_dir() else data.parent).resolve()
    found = np.zeros((len(rows), how.size, how.size), np.uint8)
    for k, i in enumerate(rows.tolist()):
        name = dataset.attributes[MASK][i]
        if not name:
            continue
        path = (home / name).resolve()
        if not path.is_relative_to(home) or not path.is_file():
            raise Refused(f"Expected the mask {name!r} of {dataset.ids[i]!r} in {home}; it is not. Mend the column.")
        with Image.open(path) as image:
            found[k] = geometry(np.asarray(image.convert("RGB")), how)[..., 0] >= 128
    return found


def _shown(
    recipe: str, i: int, rows: IntArray, dataset: Dataset, pixels: ImageArray, before: Looked, after: Looked,
    measures: Mapping[str, FloatArray],
) -> Shown:  # fmt: skip
    """One image of the gallery."""
    stream = io.BytesIO()
    Image.fromarray(pixels[rows[i]]).save(stream, "PNG")
    names = dataset.classes
    return Shown(
        recipe=recipe,
        truth=names[int(dataset.labels[rows[i]])],
        before=names[int(before.answers[i])],
        after=names[int(after.answers[i])],
        correlation=float(measures["rank correlation"][i]),
        overlap=float(measures["top 20 % overlap"][i]),
        picture=stream.getvalue(),
        maps=(before.maps[i], after.maps[i]),
    )

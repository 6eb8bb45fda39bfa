"""A `.onnx` classifier that nobody trained here: how it wants to be fed, and what its outputs are.

Our own files have a card that says all this. Elsewhere a file is a graph and nothing more, and a wrong guess is
silent: another normalisation costs points of accuracy, another class order costs the patient. So what the file itself
shows is read from it and tried out, what lies beside it is read too, and the rest is asked for, never guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from quantward.core.apart import Apart
from quantward.core.contracts import Batch
from quantward.core.errors import Refused, UsageError, suggestion
from quantward.core.preprocess import normalise
from quantward.core.store import decode, digest_file, digest_text, read_json
from quantward.core.values import Preprocess, Variant
from quantward.graph._onnx_wire import Outline, Port, outline

PIXELS = {
    "0..1": ((0.0,) * 3, (1.0,) * 3),
    "0..255": ((0.0,) * 3, (1 / 255,) * 3),
    "-1..1": ((0.5,) * 3, (0.5,) * 3),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""What files want pixels to be, as mean and standard deviation of pixels between 0 and 1."""

LABELS = ("labels.json", "labels.txt", "classes.txt")
PREPROCESS = "preprocess.json"
SIDES = (8, 4096)
"""Smallest and largest side of an input that an image classifier has."""

QUANTIZED = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul",
             "ConvInteger", "MatMulInteger"}  # fmt: skip
FLOATS = {1, 10, 11, 16}
FLOAT32 = 1

Outputs = Literal["auto", "logits", "probabilities"]
Layout = Literal["auto", "NCHW", "NHWC"]
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Told:
    """What a person says of a file: flags win over `preprocess`, a file, which wins over what lies beside the model.

    `pixels` is a name in `PIXELS`; `mean` and `std` are of pixels between 0 and 1. `classes` is a text: names with
    commas between, or a file of labels. What is None was not said.
    """

    preprocess: Path | None = None
    size: int | None = None
    resize: int | None = None
    squash: bool | None = None
    interpolation: str | None = None
    pixels: str | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    classes: str | None = None
    layout: Layout = "auto"
    outputs: Outputs = "auto"


NOTHING = Told()


def is_plain(path: Path) -> bool:
    """Whether a path is an ONNX file without a card of ours beside it."""
    return path.suffix.lower() == ".onnx" and not path.is_dir() and not path.with_name(f"{path.name}.json").exists()


def unnamed(outputs: int) -> tuple[str, ...]:
    """What outputs are called that nobody named.

    >>> unnamed(2)
    ('output 0', 'output 1')
    """
    return tuple(f"output {k}" for k in range(outputs))


def to_time(path: Path) -> Variant:
    """A Variant whose speed is asked and nothing else: what pixels stand for changes no latency."""
    return plain_variant(path, Told(pixels="0..1"))


def require_card(path: Path, told: Told) -> None:
    """Raises UsageError where a file that has a card is told how to feed it: two truths are one too many."""
    if told != NOTHING:
        raise UsageError(
            f"Expected no word on how to feed {path.name}, whose card says it; got some. "
            "Leave the flags out, or copy the .onnx file away from its card."
        )


def plain_variant(
    path: Path, told: Told = NOTHING, classes: Sequence[str] | None = None, tell: Tell = lambda _: None
) -> Variant:
    """A Variant for an ONNX classifier without a card. `classes` are the dataset's: taken, and told, where nothing
    else names them and their number is that of the outputs.

    The file is run on noise: in pieces or one by one, and for the sign of a softmax. Raises Refused for a file that is
    damaged or no image classifier, or whose preprocessing or classes nobody said; UsageError for flags that make no
    sense.
    """
    seen = outline(path)
    port = _image_port(path, seen)
    layout = _layout(path, port, told)
    assert port.dims is not None
    how = _preprocess(path, told, _side(path, port, layout))
    batch = port.dims[0] if isinstance(port.dims[0], int) else None
    files = (path, *seen.external)
    draft = Variant(
        name=path.stem,
        format="onnx",
        path=path,
        sha256=digest_file(path) if len(files) == 1 else digest_text(*(digest_file(file) for file in files)),
        bytes=sum(file.stat().st_size for file in files),
        recipe="fp32" if _float32(seen) else "as given",
        parent="",
        preprocess=how,
        classes=("",),
        batch=batch,
        max_batch=batch,
        layout=layout,
    )
    variant, outputs = _tried(draft, told, tell)
    return replace(variant, classes=_classes(path, told, outputs, classes, tell))


def read_preprocess(path: Path) -> Preprocess:
    """`preprocess.json`, as bundles carry it.

    Raises Refused for unknown keys and for values that make no sense; a key that is absent has the default of
    `core.values.Preprocess`, but size, mean and std must be there.
    """
    data = read_json(path)
    known = {field.name for field in fields(Preprocess)}
    if not isinstance(data, dict):
        raise Refused(f"Expected a JSON object with size, mean and std in {path}; got something else. Write it anew.")
    for key in data:
        if key not in known:
            raise Refused(f"Expected preprocessing in {path}; got the key {key!r}. {suggestion(key, known)}")
    absent = [name for name in ("size", "mean", "std") if name not in data]
    if absent:
        raise Refused(f"Expected {', '.join(absent)} in {path}; got none. Add what the model was trained with.")
    return _sensible(decode(Preprocess, {"resize": data["size"], **data}, path), str(path))


def _image_port(path: Path, seen: Outline) -> Port:
    """The one input, if it is an image."""
    if len(seen.inputs) != 1:
        names = ", ".join(port.name for port in seen.inputs) or "none"
        raise Refused(
            f"Expected one input, an image, in {path.name}; got {len(seen.inputs)} ({names}). Export the image part."
        )
    (port,) = seen.inputs
    shape = "of unknown shape" if port.dims is None else " x ".join("?" if d is None else f"{d}" for d in port.dims)
    if port.dims is None or len(port.dims) != 4:
        raise Refused(
            f"Expected an image input with four axes (batch, channels, height, width) in {path.name}; "
            f"{port.name!r} is {shape}. Export the model with its image input."
        )
    if port.kind != "float32":
        raise Refused(
            f"Expected an input of float32 in {path.name}; {port.name!r} is {port.kind or 'of no type'}. "
            "Export the model with a float32 input."
        )
    if len(seen.outputs) != 1:
        names = ", ".join(port.name for port in seen.outputs)
        raise Refused(
            f"Expected one output, a score for each class, in {path.name}; got {len(seen.outputs)} ({names}). "
            "Export the scores alone."
        )
    if seen.outputs[0].kind not in ("float32", "float16", "float64"):
        raise Refused(
            f"Expected scores in float32 from {path.name}; {seen.outputs[0].name!r} is "
            f"{seen.outputs[0].kind or 'of no type'}. Export the scores in place of the winning class."
        )
    return port


def _layout(path: Path, port: Port, told: Told) -> Literal["NCHW", "NHWC"]:
    """Where the three channels are, by the declared shape, or as told."""
    assert port.dims is not None
    first, last = port.dims[1] == 3, port.dims[3] == 3
    if told.layout != "auto":
        size = port.dims[1] if told.layout == "NCHW" else port.dims[3]
        if isinstance(size, int) and size != 3:
            raise UsageError(
                f"Expected a layout in which {path.name} has 3 channels; {told.layout} gives {size}. Say the other."
            )
        return told.layout
    if first != last:
        return "NCHW" if first else "NHWC"
    shape = " x ".join("?" if size is None else f"{size}" for size in port.dims)
    if first or any(not isinstance(size, int) for size in port.dims[1:]):
        raise UsageError(f"Expected to see which axis of {shape} holds the colours; say --layout NCHW or NHWC.")
    raise Refused(
        f"Expected an input of 3 colours in {path.name}; {port.name!r} is {shape}. "
        "Export the model with a layer in front that reads RGB."
    )


def _side(path: Path, port: Port, layout: str) -> int | None:
    """The side that the file declares, None where it is open."""
    assert port.dims is not None
    height, width = port.dims[2:] if layout == "NCHW" else port.dims[1:3]
    known = {size for size in (height, width) if isinstance(size, int)}
    if len(known) > 1:
        raise Refused(f"Expected a square input in {path.name}; got {height} x {width}. Export it with equal sides.")
    side = known.pop() if known else None
    if side is not None and not SIDES[0] <= side <= SIDES[1]:
        raise Refused(f"Expected an input of {SIDES[0]} to {SIDES[1]} px in {path.name}; got {side}. Check the export.")
    return side


def _preprocess(path: Path, told: Told, side: int | None) -> Preprocess:
    """Flags over the named file over `preprocess.json` beside the model; nothing is guessed."""
    beside = path.parent / PREPROCESS
    source = told.preprocess or (beside if beside.exists() else None)
    how = None if source is None else read_preprocess(source)
    if told.pixels is not None and told.pixels not in PIXELS:
        raise UsageError(
            f"Expected pixels as {', '.join(PIXELS)}; got {told.pixels!r}. {suggestion(told.pixels, PIXELS)}"
        )
    if told.pixels is not None and (told.mean is not None or told.std is not None):
        raise UsageError("Expected --pixels, or --mean and --std; got both. Keep one.")
    mean, std = PIXELS[told.pixels] if told.pixels is not None else (told.mean, told.std)
    if how is None and (mean is None or std is None):
        raise UsageError(
            f"Expected to know what {path.name} wants pixels to be, and no {PREPROCESS} lies beside it. Say --pixels "
            f"{', '.join(list(PIXELS)[:-1])} or {list(PIXELS)[-1]}, or --mean and --std, as it was trained."
        )
    size = told.size or (side if how is None else how.size)
    if size is None:
        raise UsageError(
            f"Expected the side of the input, which {path.name} leaves open; got none. Say --size, as it was trained."
        )
    if side is not None and side != size:
        said = f"{source} says" if told.size is None else "--size says"
        raise Refused(f"Expected inputs of {side} px, as {path.name} declares; {said} {size}. Mend one of the two.")
    base = how if how is not None and how.size == size else Preprocess(size=size, resize=size)
    if told.interpolation not in (None, "bilinear", "bicubic"):
        raise UsageError(f"Expected bilinear or bicubic; got {told.interpolation!r}. Use one of these.")
    changed: dict[str, Any] = {
        "resize": told.resize, "squash": told.squash, "interpolation": told.interpolation,
        "mean": mean, "std": std,
    }  # fmt: skip
    return _sensible(replace(base, **{key: value for key, value in changed.items() if value is not None}), "the flags")


def _sensible(how: Preprocess, source: str) -> Preprocess:
    numbers = np.array([*how.mean, *how.std])
    if not SIDES[0] <= how.size <= SIDES[1] or not how.size <= how.resize <= 2 * SIDES[1]:
        raise Refused(
            f"Expected a size of {SIDES[0]} to {SIDES[1]} px and a resize of at least that in {source}; got "
            f"{how.size} and {how.resize}. Mend them."
        )
    if not np.isfinite(numbers).all() or min(how.std) <= 0:
        raise Refused(
            f"Expected finite means and positive standard deviations in {source}; got mean {how.mean}, std {how.std}. "
            "Mend them."
        )
    return how


def _classes(path: Path, told: Told, outputs: int, dataset: Sequence[str] | None, tell: Tell) -> tuple[str, ...]:
    """Names for the outputs: as told, from a file beside the model, or the dataset's where their number fits."""
    source = told.classes
    if source is None:
        source = next((str(path.parent / name) for name in LABELS if (path.parent / name).exists()), None)
    if source is None and dataset is None:
        return unnamed(outputs)
    if source is not None:
        names = _names(source)
        origin = "--classes" if told.classes is not None else source
    else:
        assert dataset is not None
        names, origin = tuple(dataset), "the dataset"
        if len(names) == outputs:
            tell(
                f"{path.name}: its outputs are taken for the dataset's classes in their order: {', '.join(names)}. "
                "Say --classes if the model was trained on another order."
            )
    if len(names) != outputs:
        raise Refused(
            f"Expected {outputs} classes, one for each output of {path.name}; {origin} names {len(names)} "
            f"({', '.join(names)}). Say --classes with one name for each output, in its order."
        )
    return names


def _names(source: str) -> tuple[str, ...]:
    """Class names from `a,b,c`, a text file with a name a line, or a JSON list (or object from number to name)."""
    path = Path(source)
    if path.suffix == ".json":
        data = read_json(path)
        if isinstance(data, dict):
            try:
                data = [data[key] for key in sorted(data, key=int)]
            except ValueError:
                raise Refused(f"Expected a list of class names in {path}; got an object. Write a list.") from None
        names = data if isinstance(data, list) else []
    elif path.suffix == ".txt":
        try:
            names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError):
            raise Refused(f"Expected a text file of class names at {path}; it cannot be read. Check it.") from None
    else:
        names = [name.strip() for name in source.split(",")]
    if not names or not all(isinstance(name, str) and name for name in names) or len(set(names)) != len(names):
        raise Refused(f"Expected different class names in {source}; got {names!r}. Name each output once.")
    return tuple(names)


def _float32(seen: Outline) -> bool:
    """Whether the file computes in float32 from weights in float32."""
    kinds = {tensor.kind for tensor in seen.stored} & FLOATS
    return kinds <= {FLOAT32} and not QUANTIZED & set(seen.operators)


def _tried(draft: Variant, told: Told, tell: Tell) -> tuple[Variant, int]:
    """The draft with what three images of noise show: batches, probabilities; and the number of outputs."""
    noise = np.random.default_rng(0).integers(0, 256, (3, *(draft.preprocess.size,) * 2, 3), dtype=np.uint8)
    noise //= np.array([1, 2, 4], np.uint8)[:, None, None, None]  # ranges of their own: who mixes images is seen
    images = normalise(noise, draft.preprocess)
    one = replace(draft, batch=draft.batch or 1, max_batch=draft.batch or 1)
    alone = _run(one, images)
    variant = draft
    if draft.batch is None:
        try:
            together: Batch | None = _run(draft, images)
        except Refused:
            together = None
        if together is None or together.shape != alone.shape or not _close(together, alone):
            variant = replace(draft, max_batch=1)
            why = "takes none" if together is None or together.shape != alone.shape else "answers differently in one"
            tell(f"{draft.path.name}: declares a batch of any size but {why}; it is run image by image.")
    if not np.isfinite(alone).all():
        raise Refused(
            f"Expected finite outputs from {draft.path.name} on noise; got NaN or infinity. "
            "Check how it wants pixels to be, or its weights."
        )
    if alone.shape[1] < 2:
        raise Refused(
            f"Expected a score for each of at least 2 classes from {draft.path.name}; it gives {alone.shape[1]}. "
            "Export one output a class (the complement, for a single sigmoid)."
        )
    kind = told.outputs if told.outputs != "auto" else _kind(draft.path, alone)
    return replace(variant, outputs=kind), alone.shape[1]


def _run(variant: Variant, images: Batch) -> Batch:
    """In a process of its own: a file from elsewhere may crash its runtime."""
    with Apart(variant, "onnxruntime", 1) as session:
        return session(images)


def _close(a: Batch, b: Batch) -> bool:
    return bool(np.abs(a - b).max() <= 1e-3 * max(1.0, float(np.abs(b).max())))


def _kind(path: Path, said: Batch) -> Literal["logits", "probabilities"]:
    """Probabilities where all rows sum to 1; logits where a value lies outside 0 to 1; otherwise ask."""
    inside = said.min() >= 0 and said.max() <= 1 + 1e-4
    if inside and np.abs(said.sum(1) - 1).max() <= 1e-3:
        return "probabilities"
    if inside:
        raise UsageError(
            f"Expected logits or probabilities that sum to 1 from {path.name}; its outputs lie between 0 and 1 and sum "
            f"to {said.sum(1).mean():.2f}. Export it without its sigmoids, or say --outputs logits if these are logits."
        )
    return "logits"

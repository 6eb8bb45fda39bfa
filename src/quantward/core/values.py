"""The nouns of Quantward: small frozen values that flow from images to a verdict.

Each stage is a function from one of these to the next, so any stage can restart from disk and work done
elsewhere can enter at a waist (`Plan`, `Predictions`). Grow a type only when a second place needs the field.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from quantward.core.errors import Refused

FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.integer[Any]]
ImageArray = npt.NDArray[np.uint8]

ROLES = ("train", "tune", "calibrate", "select", "test")
"""What an image may be used for. Weights see `train`; early stopping sees `tune`; ranges come from `calibrate`;
choices between candidates from `select`; a verdict only from `test`."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images with their truth. `reader(i)` gives image i as RGB, uint8, shape (height, width, 3).

    `labels` holds indices into `classes`, shape (n,). `groups` names the patient (or lesion) of each image,
    `splits` the split each image was published in, `attributes` any further column (sex, hospital, ...).
    `fingerprint` changes when any image, label or group changes.
    """

    name: str
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    labels: IntArray
    fingerprint: str
    reader: Callable[[int], ImageArray] = field(repr=False)
    groups: tuple[str, ...] | None = None
    splits: tuple[str, ...] | None = None
    attributes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, i: int) -> ImageArray:
        """Image i as RGB, uint8, shape (height, width, 3)."""
        return self.reader(i)


@dataclass(frozen=True, eq=False)
class Fold:
    """Which image plays which role. Index arrays into a Dataset; no group has images in two roles."""

    number: int
    of: int
    seed: int
    dataset: str
    train: IntArray
    tune: IntArray
    calibrate: IntArray
    select: IntArray
    test: IntArray

    def role(self, name: str) -> IntArray:
        """The indices that play `name` (one of `ROLES`).

        Raises Refused for another name.
        """
        if name not in ROLES:
            raise Refused(f"Expected a role out of {', '.join(ROLES)}; got {name!r}. Use one of these.")
        indices: IntArray = getattr(self, name)
        return indices


@dataclass(frozen=True)
class Preprocess:
    """How an RGB uint8 image becomes a network input; the same numbers in training and on every runtime.

    The image is resized (bilinear or bicubic, antialiased) so that its shorter side is `resize`, or squashed to
    resize x resize when `squash`; the centre `size` x `size` is cut out, divided by 255, normalised by `mean`
    and `std` per channel.
    """

    size: int = 224
    resize: int = 224
    squash: bool = False
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


@dataclass(frozen=True, eq=False)
class Model:
    """A trained float classifier. `net` is a torch module in eval mode: (n, 3, size, size) -> logits (n, classes)."""

    name: str
    net: Any = field(repr=False)
    preprocess: Preprocess
    classes: tuple[str, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Node:
    """One operation of a traced network. In `args` and `kwargs` a reference to another node is `{"node": name}`,
    to a weight `{"weight": name}`; everything else is plain JSON."""

    name: str
    op: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class QuantSpec:
    """How one tensor is stored in few bits: q = clip(round(x / scale) + zero_point, low, high).

    `scale` and `zero_point` are scalars (shape ()) for a per-tensor grid or have one entry per slice along `axis`. With
    `block`, a weight is seen as a matrix (outputs, all else) and each row's runs of `block` entries share a scale:
    shape (outputs, ceil(all else / block)).
    `kind` says what is stored: a weight, a bias (int32 on the grid input scale x weight scale) or an activation;
    `dynamic` activations get their range anew from every image. `format` float16 has no grid at all.
    `source` says where the range came from, for example `entropy over 200 images`.
    """

    kind: Literal["weight", "bias", "activation"]
    bits: int = 8
    signed: bool = True
    format: Literal["integer", "float16"] = "integer"
    scheme: Literal["symmetric", "affine"] = "symmetric"
    axis: int | None = None
    block: int | None = None
    scale: FloatArray = field(default_factory=lambda: np.ones((), np.float32))
    zero_point: IntArray = field(default_factory=lambda: np.zeros((), np.int32))
    dynamic: bool = False
    source: str = ""

    @property
    def low(self) -> int:
        """Smallest stored integer. Symmetric signed grids leave out the most negative one."""
        if not self.signed:
            return 0
        return -(1 << (self.bits - 1)) + (1 if self.scheme == "symmetric" else 0)

    @property
    def high(self) -> int:
        """Largest stored integer."""
        return (1 << (self.bits - 1)) - 1 if self.signed else (1 << self.bits) - 1


@dataclass(frozen=True, eq=False)
class Plan:
    """The first waist: a traced network, its float weights, and how each tensor is to be stored.

    A recipe makes a Plan from a Plan and knows no target; a target writes a Plan and knows no recipe. The float
    Plan (`tensors` empty) is where every recipe starts. Batch normalisation is already folded into `weights`.
    `tensors` is keyed by weight name, by the name of the node whose output is quantized, or by `LAYER:input` where only
    what one layer reads is.
    """

    program: tuple[Node, ...]
    weights: Mapping[str, FloatArray]
    preprocess: Preprocess
    classes: tuple[str, ...]
    recipe: str = "fp32"
    parent: str = ""
    tensors: Mapping[str, QuantSpec] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Variant:
    """A deployed file (or folder): what is measured and what ships. `parent` is the digest of the float weights.

    `max_batch` is 1 where a batch would change the answer (ranges taken from the whole input tensor). Files from
    elsewhere may differ from ours: `batch` is the only number of images that a call takes, `layout` the order of the
    input's axes, and `outputs` says whether probabilities come out in place of logits."""

    name: str
    format: str
    path: Path
    sha256: str
    bytes: int
    recipe: str
    parent: str
    preprocess: Preprocess
    classes: tuple[str, ...]
    seconds: float = 0.0
    max_batch: int | None = None
    target: str = ""
    batch: int | None = None
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    outputs: Literal["logits", "probabilities"] = "logits"


@dataclass(frozen=True, eq=False)
class Predictions:
    """The second waist: what one file on one runtime said about some images.

    `truth` holds indices into `classes`, shape (n,); `probabilities` has shape (n, classes), rows summing to 1.
    """

    ids: tuple[str, ...]
    truth: IntArray
    probabilities: FloatArray
    classes: tuple[str, ...]
    source: str = ""
    groups: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Estimate:
    """A metric with its interval; `value` is None, with a `reason`, where the metric is undefined."""

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    n_positive: int | None = None
    reason: str = ""


@dataclass(frozen=True)
class ReliabilityBin:
    """One bin of a reliability diagram: mean confidence against observed frequency, over `count` cases."""

    low: float
    high: float
    count: int
    confidence: float | None
    frequency: float | None


@dataclass(frozen=True)
class Evaluation:
    """How good one set of Predictions is. `per_class` is metric -> class -> Estimate (one against the rest)."""

    source: str
    n: int
    classes: tuple[str, ...]
    counts: Mapping[str, int]
    overall: Mapping[str, Estimate]
    per_class: Mapping[str, Mapping[str, Estimate]]
    reliability: Mapping[str, tuple[ReliabilityBin, ...]]
    confusion: tuple[tuple[int, ...], ...]
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one call at one batch size, over `runs` calls in several rounds.

    `rounds` holds each round's median: files timed together share their rounds, so that ratios can be paired. `spread`
    is the robust coefficient of variation of the calls, (p75 - p25) / 1.349 / p50, which is the usual one where times
    are normal, and which a single hiccup does not move. `settled` is False where warming up never came to rest;
    `joules` is the energy of one image, where the machine tells; `peak_bytes` the most memory the process ever held up
    to then.
    """

    batch: int
    p50: float
    p90: float
    p99: float
    runs: int
    spread: float
    rounds: tuple[float, ...] = ()
    settled: bool = True
    joules: float | None = None
    peak_bytes: int | None = None

    @property
    def reliable(self) -> bool:
        """False where the machine was too noisy for the figure to mean much (spread over 10 %, or never at rest)."""
        return self.spread <= 0.10 and self.settled


@dataclass(frozen=True)
class ColdStart:
    """Seconds from nothing to the first answer: a new process, the runtime's library loaded, the file opened, one image
    answered; each the median over `starts` processes."""

    process: float
    library: float
    file: float
    first: float
    starts: int = 1

    @property
    def seconds(self) -> float:
        """From opening the file to the first answer: what the file costs, its runtime's library apart."""
        return self.file + self.first


@dataclass(frozen=True)
class Speedup:
    """How many times as fast as `reference` at one batch size, with its interval: median latency of the reference over
    median latency, resampled by round."""

    reference: str
    batch: int
    value: float
    low: float
    high: float
    rounds: int


@dataclass(frozen=True)
class Efficiency:
    """What a Variant costs on one runtime and machine. Times in milliseconds, throughput in images a second.

    `seconds` is what making the file took. `failure` is the reason where it could not be timed, or not at every batch
    size. `speedups` are against FP32 on the same runtime and against PyTorch eager, where such files were timed along;
    `notes` name what kept it from being faster.
    """

    name: str
    runtime: str
    bytes: int
    seconds: float
    latency: tuple[Latency, ...]
    throughput: float | None = None
    peak_bytes: int | None = None
    machine: str = ""
    threads: int = 1
    recipe: str = ""
    sha256: str = ""
    parent: str = ""
    cold: ColdStart | None = None
    speedups: tuple[Speedup, ...] = ()
    failure: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bench:
    """The results of one `bench` run on one machine: `machine` describes it without naming it or its user, `how` says
    how was timed, `energy` is the reason why no energy stands in the rows (empty where it does)."""

    rows: tuple[Efficiency, ...]
    machine: Mapping[str, Any]
    how: Mapping[str, Any] = field(default_factory=dict)
    energy: str = ""
    schema: int = 1


@dataclass(frozen=True)
class Delta:
    """candidate - baseline of one metric on the same images, with its interval and two-sided p-value."""

    baseline: float | None
    candidate: float | None
    delta: float | None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    ties: float | None = None
    n_positive: int | None = None
    reason: str = ""


@dataclass(frozen=True)
class Flips:
    """How many images changed their top class, as a rate with an interval; `broken` were right, `mended` wrong."""

    count: int
    rate: float
    low: float
    high: float
    broken: int = 0
    mended: int = 0
    matrix: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Candidate against baseline on the same images. `per_class` is metric -> class -> Delta."""

    baseline: str
    candidate: str
    n: int
    classes: tuple[str, ...]
    deltas: Mapping[str, Delta]
    per_class: Mapping[str, Mapping[str, Delta]]
    flips: Flips
    n_groups: int | None = None
    replicates: int = 0
    seed: int = 0
    smaller: float | None = None
    faster: float | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)


Status = Literal["pass", "fail", "undecided", "not-applicable"]
Outcome = Literal["PASS", "FAIL", "INSUFFICIENT EVIDENCE"]


@dataclass(frozen=True)
class Finding:
    """What one gate says: its observed bound against its limit, and why that decides (or does not)."""

    code: str
    title: str
    status: Status
    observed: float | None
    limit: float | None
    why: str


@dataclass(frozen=True)
class Verdict:
    """All findings of one candidate. One failure fails; otherwise one undecided gate leaves it open."""

    candidate: str
    findings: tuple[Finding, ...]

    @property
    def outcome(self) -> Outcome:
        """PASS, FAIL or INSUFFICIENT EVIDENCE.

        >>> Verdict("x", (Finding("a", "", "pass", 0, 0, ""), Finding("b", "", "undecided", 0, 0, ""))).outcome
        'INSUFFICIENT EVIDENCE'
        """
        states = {finding.status for finding in self.findings}
        if "fail" in states:
            return "FAIL"
        return "PASS" if "pass" in states and "undecided" not in states else "INSUFFICIENT EVIDENCE"


def with_weights(plan: Plan, changed: Mapping[str, FloatArray], **fields: Any) -> Plan:
    """The same Plan with some weights (and any other fields) replaced."""
    return replace(plan, weights={**plan.weights, **changed}, **fields)


@dataclass(frozen=True)
class Entry:
    """One candidate as it was measured: a row of the verdict table.

    `comparison` and `verdict` are None for the baseline itself; `failure` is the reason where a step failed (the row
    stays, with its reason); `audit` holds plain facts about the file (share of integer operators, agreement, ...).
    `select` holds the predictions of the images on which choices were made, `attributes` those of the test images by
    which subgroups are compared.
    """

    name: str
    recipe: str
    runtime: str
    predictions: Predictions | None = None
    evaluation: Evaluation | None = None
    comparison: Comparison | None = None
    efficiency: Efficiency | None = None
    verdict: Verdict | None = None
    audit: Mapping[str, Any] = field(default_factory=dict)
    failure: str = ""
    select: Predictions | None = None
    attributes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Dossier:
    """Everything a report shows about one search: what was asked, on which images, what came out.

    `entries[0]` is the FP32 baseline. `chosen` names the lowest precision that passed, None where none did.
    `images` is plain data about the Dataset and Fold (name, fingerprint, counts by role and class, warnings);
    `external` holds the same candidates on a second Dataset; `choices` says how a candidate was picked on the
    `select` images; `power` is the sentence on what the test images can prove at all.
    """

    title: str
    entries: tuple[Entry, ...]
    chosen: str | None
    images: Mapping[str, Any]
    gates: Mapping[str, Any]
    provenance: Mapping[str, Any]
    power: str = ""
    choices: tuple[Mapping[str, Any], ...] = ()
    external: tuple[Entry, ...] = ()
    external_images: Mapping[str, Any] = field(default_factory=dict)

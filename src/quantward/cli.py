"""The command line: one function a verb that parses, calls and prints. No logic, and no heavy import before a verb
needs it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial, wraps
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from quantward.core.errors import QuantwardError

PASS, INTERNAL, USAGE, FAILED, OPEN, REFUSED = 0, 1, 2, 3, 4, 5
CODES = {"PASS": PASS, "FAIL": FAILED, "INSUFFICIENT EVIDENCE": OPEN}

app = typer.Typer(
    name="quantward",
    help="Find the lowest precision a medical image classifier tolerates, prove it, ship the proof. Research use only.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Data = Annotated[Path, typer.Argument(help="Folder of class folders, CSV, .npz, or DICOM with a CSV.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document to stdout and nothing else.")]
Seed = Annotated[int, typer.Option(help="Seed of everything that is drawn.")]
Threads = Annotated[int, typer.Option(help="Threads of the runtime.")]
Lesson = Annotated[
    str, typer.Option(help="What recipes that train do so for: a stage, for example saliency:masked=0.5.")
]
Gates = Annotated[str, typer.Option(help="clinical, screening, or a gates.yaml.")]
Replicates = Annotated[int, typer.Option(help="Bootstrap replicates.")]
Discordance = Annotated[
    float, typer.Option(help="Share of images that exactly one of two models gets right, assumed for the power.")
]
Split = Annotated[
    str,
    typer.Option(
        help="published, own (a new leak-free one), auto, ungrouped (leaks), or a CSV that quantward check --out wrote."
    ),
]

FEEDING: dict[str, Any] = {
    "preprocess": Annotated[Path | None, typer.Option(help="For .onnx files without a card: their preprocess.json.")],
    "pixels": Annotated[str | None, typer.Option(help="What they want pixels to be: 0..1, 0..255, -1..1, imagenet.")],
    "mean": Annotated[tuple[float, float, float] | None, typer.Option(help="Or: mean of pixels between 0 and 1.")],
    "std": Annotated[tuple[float, float, float] | None, typer.Option(help="And their standard deviation.")],
    "size": Annotated[int | None, typer.Option(help="Side of the input, where the file leaves it open.")],
    "resize": Annotated[int | None, typer.Option(help="Shorter side that images get before the centre is cut out.")],
    "squash": Annotated[bool | None, typer.Option("--squash/--crop", help="Squash images to a square, or cut them.")],
    "interpolation": Annotated[Literal["bilinear", "bicubic"] | None, typer.Option(help="How images are resized.")],
    "classes": Annotated[str | None, typer.Option(help="Names of the outputs, a,b,c or a .txt or .json file.")],
    "layout": Annotated[Literal["NCHW", "NHWC"] | None, typer.Option(help="Order of the input's axes, if unclear.")],
    "outputs": Annotated[Literal["logits", "probabilities"] | None, typer.Option(help="What comes out, if unclear.")],
}
"""What a person may say of an `.onnx` file without a card: the fields of `incoming.Told`."""


def fed(verb: Callable[..., None]) -> Callable[..., None]:
    """Give a verb the options in `FEEDING`; it gets what was said as `told`."""

    @wraps(verb)
    def with_told(**given: Any) -> None:
        from quantward.incoming import Told

        said = {name: given.pop(name) for name in FEEDING}
        verb(**given, told=Told(**{name: value for name, value in said.items() if value is not None}))

    own = [p for p in inspect.signature(verb, eval_str=True).parameters.values() if p.name != "told"]
    more = [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=kind)
        for name, kind in FEEDING.items()
    ]
    with_told.__signature__ = inspect.Signature([*own, *more])  # type: ignore[attr-defined]
    with_told.__annotations__ = {p.name: p.annotation for p in (*own, *more)}
    return with_told


def main() -> None:
    """Run a verb; a fault of the input is one sentence on stderr and its exit code, never a traceback."""
    try:
        app()
    except QuantwardError as error:
        typer.echo(f"quantward: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        typer.echo("quantward: interrupted; run the same command to go on.", err=True)
        sys.exit(130)


def _track(quiet: bool = False) -> Any:
    from quantward.core.progress import bar, silent

    return silent if quiet else bar


def _print_json(value: Any) -> None:
    import json

    from quantward.core.store import plain

    typer.echo(json.dumps(plain(value), indent=1, ensure_ascii=False, allow_nan=False))


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path("quantward-demo"),
    seed: Seed = 0,
) -> None:
    """Made-up images, end to end: data, training, search, verdict table, report and bundle."""
    from quantward.demo import run

    dossier, report, bundle = run(out, seed=seed, track=_track())
    _show_search(dossier, report, bundle)


@app.command()
def check(
    data: Data,
    out: Annotated[Path | None, typer.Option(help="Write a leak-free grouped split here (CSV).")] = None,
    folders: Annotated[bool, typer.Option(help="Read the class folders even where an images.csv lies there.")] = False,
    lenient: Annotated[bool, typer.Option(help="Leave with 0 even when errors were found.")] = False,
    margin: Annotated[float, typer.Option(help="Drop in accuracy to rule out, as a share.")] = 0.02,
    discordance: Discordance = 0.04,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Look for leaks, duplicates, label conflicts and bad files, and say what the test set can prove. No model."""
    from quantward.measure import check_data

    found = check_data(data, out, folders=folders, margin=margin, discordance=discordance, seed=seed,
                       track=_track(as_json))  # fmt: skip
    if as_json:
        _print_json(found.document())
    else:
        from quantward.report.terminal import show_findings

        show_findings(
            found.document()["findings"], _console(), title=f"{found.report.dataset}: {found.report.n} images"
        )
        typer.echo(found.power)
        if found.split is not None:
            typer.echo(f"split: {found.split}")
    if found.report.errors and not lenient:
        raise typer.Exit(REFUSED)


@app.command()
def train(
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder of the run; the same command goes on after a stop.")],
    arch: Annotated[str, typer.Option(help="Any timm backbone.")] = "mobilenetv2_100",
    weights: Annotated[
        str | None, typer.Option(help="Safetensors file or folder, 'none', or nothing for timm's own download.")
    ] = None,
    stage: Annotated[
        str, typer.Option(help="Training stage and its options, for example fit:epochs=8,lr=1e-3.")
    ] = "fit",
    size: Annotated[int | None, typer.Option(help="Side of the network's input in pixels.")] = None,
    split: Split = "auto",
    folds: Annotated[int, typer.Option(help="Cross-validate: a run a fold, every patient tested once.")] = 1,
    seed: Seed = 0,
    devices: Annotated[int, typer.Option(help="GPUs (without any: shares of the cores) that train together.")] = 1,
    profile: Annotated[bool, typer.Option(help="Show where time goes; details in OUT/profile.json.")] = False,
    as_json: Json = False,
) -> None:
    """Train a float classifier on a leak-free fold, or on each of several; killed runs resume."""
    from quantward.train import on_devices, profiled

    options: dict[str, Any] = {"arch": arch, "weights": weights, "stage": stage, "size": size, "split": split,
                               "seed": seed, "track": _track(as_json)}  # fmt: skip
    with on_devices(devices), profiled(out) if profile else nullcontext() as seen:
        if folds != 1:
            from quantward.crossval import train_folds

            found = train_folds(data, out, folds=folds, **options)
            document = {"run": out, **found.document()}
            lines = [*found.sentences(), f"trained {folds} folds: {out}"]
        else:
            from quantward.runs import train_run

            model = train_run(data, out, **options)
            document = {"run": out, "arch": model.name, "classes": model.classes, "provenance": model.provenance}
            lines = [f"trained {model.name}: {out}"]
    if seen is not None:
        document["profile"], lines = seen.profile, [*seen.profile.lines(), *lines]
    if as_json:
        _print_json(document)
    else:
        typer.echo("\n".join(lines))


@app.command()
def find(
    run: Annotated[Path, typer.Argument(help="A folder that quantward train made.")],
    data: Data,
    gates: Gates = "clinical",
    external: Annotated[Path | None, typer.Option(help="A second dataset, to confirm on.")] = None,
    runtime: Annotated[
        str, typer.Option(help="Where the candidates run and are judged; auto measures the installed ones.")
    ] = "auto",
    target: Annotated[str, typer.Option(help="What the candidates are written as.")] = "onnx-cpu",
    recipe: Annotated[
        list[str] | None, typer.Option(help="A candidate in place of the default ones, a step each; repeatable.")
    ] = None,
    lesson: Lesson = "",
    out: Annotated[Path | None, typer.Option(help="Folder for files, report and bundle (RUN/find).")] = None,
    threads: Threads = 1,
    replicates: Replicates = 10_000,
    discordance: Discordance = 0.04,
    subgroup: Annotated[
        list[str] | None, typer.Option(help="An attribute of DATA whose values are compared one by one; repeatable.")
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """THE verb: walk the precision ladder down to the lowest that passes the gates; table, report, bundle."""
    from quantward.candidates import LADDER, Search, Step
    from quantward.evaluate import read_gates
    from quantward.find import search_run

    search = Search(
        read_gates(gates),
        ladder=tuple(Step(name, (name,)) for name in recipe) if recipe else LADDER,
        target=target,
        runtime=runtime,
        threads=threads,
        replicates=replicates,
        seed=seed,
        discordance=discordance,
        subgroups=tuple(subgroup or ()),
        lesson=lesson,
    )
    folder = out or run / "find"
    dossier, report, bundle = search_run(run, data, search, folder, external=external,
                                         tell=partial(typer.echo, err=True), track=_track(as_json))  # fmt: skip
    if as_json:
        from quantward.core.store import read_json

        _print_json({**read_json(folder / "dossier.json"), "report": report, "bundle": bundle})
    else:
        _show_search(dossier, report, bundle)
    raise typer.Exit(_code(dossier))


def _show_search(dossier: Any, report: Path, bundle: Path | None) -> None:
    from quantward.report.terminal import show_dossier

    show_dossier(dossier, _console())
    typer.echo(f"report: {report}")
    typer.echo(f"bundle: {bundle}" if bundle else "bundle: none, no precision passed")


def _console() -> Any:
    from rich.console import Console

    return Console()


def _code(dossier: Any) -> int:
    if dossier.chosen is not None:
        return PASS
    outcomes = {entry.verdict.outcome for entry in dossier.entries if entry.verdict is not None}
    return OPEN if "INSUFFICIENT EVIDENCE" in outcomes else FAILED


@app.command()
@fed
def quantize(
    run: Annotated[Path, typer.Argument(help="A folder that quantward train made, or a float .onnx classifier.")],
    recipe: Annotated[str, typer.Option(help="For example int8-static:calibrator=entropy,samples=200.")],
    told: Any,
    data: Annotated[
        Path | None, typer.Option(help="The data the run was trained on, or images like it, for calibration.")
    ] = None,
    target: Annotated[str, typer.Option(help="What to write.")] = "onnx-cpu",
    lesson: Lesson = "",
    out: Annotated[Path | None, typer.Option(help="Folder for the file (RUN/files).")] = None,
    split: Annotated[str, typer.Option(help="For .onnx files: DATA's split, as quantward train takes it.")] = "auto",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Apply one recipe and write one deployed file."""
    from quantward.runs import quantize_run

    folder = out or (run.with_suffix("") if run.suffix else run) / "files"
    variant = quantize_run(run, recipe, target, data, folder, lesson=lesson, split=split, told=told, seed=seed,
                           tell=partial(typer.echo, err=True), track=_track(as_json))  # fmt: skip
    if as_json:
        _print_json(variant)
    else:
        typer.echo(f"wrote {variant.path} ({variant.bytes:,} bytes)")


@app.command()
@fed
def evaluate(
    variant: Annotated[Path, typer.Argument(help="A deployed file, a bundle, or any .onnx classifier.")],
    data: Data,
    told: Any,
    run: Annotated[Path | None, typer.Option(help="Take only the test images of this run's fold.")] = None,
    runtime: Annotated[str | None, typer.Option(help="By default the first installed one that reads the file.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the predictions here (.csv or .parquet).")] = None,
    threads: Threads = 1,
    replicates: Replicates = 10_000,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Run a file on images: predictions, and every metric with its interval."""
    from quantward.evaluate import evaluate as measure
    from quantward.evaluate.predictions import save
    from quantward.measure import run_variant

    said = run_variant(variant, data, run=run, runtime=runtime, threads=threads, told=told,
                       tell=partial(typer.echo, err=True), track=_track(as_json))  # fmt: skip
    if out is not None:
        save(said, out)
    found = measure(said, replicates=replicates, seed=seed, track=_track(as_json))
    if as_json:
        _print_json(found)
    else:
        from quantward.report.terminal import show_evaluation

        show_evaluation(found, _console())


@app.command()
@fed
def compare(
    baseline: Annotated[Path, typer.Argument(help="Predictions (.csv, .parquet), a deployed file, or a bundle.")],
    candidate: Annotated[Path, typer.Argument(help="The same, of the model that is to replace it.")],
    told: Any,
    data: Annotated[Path | None, typer.Argument(help="Images, where files are compared and not predictions.")] = None,
    gates: Gates = "clinical",
    method: Annotated[
        str, typer.Option(help="percentile, bca, or eq3 (a paper's p-value, for reproduction).")
    ] = "percentile",
    select: Annotated[
        tuple[Path, Path] | None,
        typer.Option(help="Both models' predictions of other images: thresholds and temperatures are set there."),
    ] = None,
    attributes: Annotated[
        Path | None, typer.Option(help="CSV id,<attribute>,... for a subgroup table (hospital, sex, scanner).")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write an HTML page here.")] = None,
    replicates: Replicates = 10_000,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Paired statistics of two models on the same images, and a verdict. Needs neither torch nor a model."""
    from quantward.evaluate import compare_document
    from quantward.measure import compare_files

    found = compare_files(baseline, candidate, data, gates=gates, method=method, replicates=replicates, seed=seed,
                          select=select, attributes=attributes, report=report, told=told,
                          tell=partial(typer.echo, err=True), track=_track(as_json))  # fmt: skip
    if as_json:
        _print_json(compare_document(found.comparison, found.verdict))
    else:
        from quantward.report.terminal import show_comparison

        show_comparison(found.comparison, _console(), found.verdict)
        if report is not None:
            typer.echo(f"report: {report}")
    raise typer.Exit(CODES[found.verdict.outcome])


@app.command()
def bench(
    variants: Annotated[list[Path] | None, typer.Argument(help="Deployed files with their cards, or bundles.")] = None,
    runtime: Annotated[
        list[str] | None, typer.Option(help="Each file on each that reads it; by default one each; repeatable.")
    ] = None,
    threads: Annotated[list[int] | None, typer.Option(help="Threads of the runtime (1); repeatable.")] = None,
    batch: Annotated[list[int] | None, typer.Option(help="Images a call (1 and 32); repeatable.")] = None,
    rounds: Annotated[int, typer.Option(help="Rounds, in each of which every file has a turn.")] = 30,
    seconds: Annotated[float, typer.Option(help="About how long a file is timed at a batch size.")] = 5.0,
    starts: Annotated[int, typer.Option(help="Cold starts, of which the median is told.")] = 3,
    merge: Annotated[
        list[Path] | None, typer.Option(help="Results (.json) of the same files on another device; repeatable.")
    ] = None,
    out: Annotated[
        list[Path] | None, typer.Option(help="Write the results (.json) or a page with a plot (.html); repeatable.")
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Time files on runtimes in turns: percentiles, throughput, memory, cold start; or merge what devices measured."""
    from quantward.benching import Effort, bench_and_merge

    effort = Effort(tuple(batch or (1, 32)), rounds, seconds, starts)
    results = bench_and_merge(variants or (), runtimes=runtime or (), threads=threads or (1,), effort=effort,
                              merge=merge or (), out=out or (), seed=seed, tell=partial(typer.echo, err=True),
                              track=_track(as_json))  # fmt: skip
    if as_json:
        _print_json({"results": results})
    else:
        from quantward.report.terminal import show_efficiency

        for found in results.values():
            show_efficiency(found.rows, _console(), found.energy)
        for path in out or ():
            typer.echo(f"wrote {path}")
    if not any(row.latency for found in results.values() for row in found.rows):
        raise typer.Exit(REFUSED)


@app.command()
def verify(
    bundle: Annotated[Path, typer.Argument(help="A bundle folder.")],
    data: Annotated[Path | None, typer.Argument(help="The images of the proof, to run the file on them again.")] = None,
    threads: Threads = 1,
    as_json: Json = False,
) -> None:
    """Trust nothing: hash every file of a bundle, compute its verdict anew, run it again."""
    from quantward.bundle import verify as verify_bundle

    found = verify_bundle(bundle, data, threads=threads, track=_track(as_json))
    if as_json:
        _print_json({**vars(found), "holds": found.holds})
    else:
        for item in found.checks:
            typer.echo(f"{'ok  ' if item.holds else 'FAIL'} {item.name}: {item.seen}")
        for line in found.unchecked:
            typer.echo(f"     not checked again: {line}")
    if not found.holds:
        raise typer.Exit(REFUSED)


@app.command()
def predict(
    bundle: Annotated[Path, typer.Argument(help="A bundle folder, or a deployed file with its card.")],
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    threads: Threads = 1,
    as_json: Json = False,
) -> None:
    """Class probabilities of single images by a bundle. For research use only."""
    from quantward.bundle import NOTICE
    from quantward.bundle import predict as predict_images

    rows = predict_images(bundle, images, threads=threads)
    if as_json:
        _print_json({"notice": NOTICE, "predictions": rows})
        return
    for row in rows:
        typer.echo(f"{row['image']}: {row['class']} ({row['probability']:.3f})")
    typer.echo(NOTICE, err=True)


@app.command()
def sensitivity(
    run: Annotated[Path, typer.Argument(help="A folder that quantward train made.")],
    data: Data,
    out: Annotated[Path | None, typer.Option(help="Folder for tables, front and page (RUN/sensitivity).")] = None,
    samples: Annotated[int, typer.Option(help="Calibration images that layers are judged on.")] = 64,
    offer: Annotated[str, typer.Option(help="Widths to choose from, for example w8a8+w4a8+w4a4.")] = "w8a8+w4a8",
    by: Annotated[
        Literal["fisher", "one-at-a-time"], typer.Option(help="Which ranking the tables are chosen by.")
    ] = "one-at-a-time",
    measure: Annotated[bool, typer.Option(help="Measure layer by layer; without, gradients alone: seconds.")] = True,
    top: Annotated[int, typer.Option(help="Tables of the front that are written and run as files.")] = 5,
    latency: Annotated[
        Path | None, typer.Option(help="Measured times, JSON {layer: {width: milliseconds}}, to bound as well.")
    ] = None,
    milliseconds: Annotated[float | None, typer.Option(help="The bound on their sum.")] = None,
    target: Annotated[str, typer.Option(help="What the tables are written as.")] = "onnx-cpu",
    runtime: Annotated[str, typer.Option(help="Where they run.")] = "onnxruntime",
    threads: Threads = 1,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Which layers mind fewer bits: ranking, best table at each size, and the top ones run as files."""
    from quantward.sweeps import sensitivity_run

    folder = out or run / "sensitivity"
    found = sensitivity_run(run, data, folder, samples=samples, offer=tuple(offer.split("+")), by=by, measure=measure,
                            top=top, latency=latency, milliseconds=milliseconds, target=target, runtime=runtime,
                            threads=threads, seed=seed, track=_track(as_json))  # fmt: skip
    if as_json:
        _print_json(found)
    else:
        from quantward.core.store import plain
        from quantward.report.front import show_front

        show_front(plain(found), _console())
        typer.echo(f"page: {folder / 'front.html'}\ntables: {folder / 'tables'}")


@app.command()
def explain(
    run: Annotated[Path, typer.Argument(help="A folder that quantward train made.")],
    data: Data,
    recipe: Annotated[list[str], typer.Option(help="A candidate to hold against FP32; repeatable.")],
    out: Annotated[Path | None, typer.Option(help="Folder for record, page and files (RUN/explain).")] = None,
    method: Annotated[
        str, typer.Option(help="gradcam, integrated-gradients, input-gradients, occlusion or rise.")
    ] = "gradcam",
    images: Annotated[int, typer.Option(help="Test images, evenly spaced.")] = 64,
    shown: Annotated[int, typer.Option(help="Images in the gallery of each candidate.")] = 12,
    curves: Annotated[bool, typer.Option(help="Deletion and insertion areas too: 42 more runs an image.")] = False,
    target: Annotated[str, typer.Option(help="What the models are written as.")] = "onnx-cpu",
    runtime: Annotated[str, typer.Option(help="Where they run.")] = "onnxruntime",
    threads: Threads = 1,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Does the smaller model look where FP32 looks? Drift of its maps, and the images that moved most."""
    from quantward.explaining import explain_run

    folder = out or run / "explain"
    found = explain_run(run, data, recipe, folder, method=method, images=images, shown=shown, curves=curves,
                        target=target, runtime=runtime, threads=threads, seed=seed, track=_track(as_json))  # fmt: skip
    if as_json:
        _print_json(found)
    else:
        from quantward.report.gallery import show_drift

        show_drift(found, _console())
        typer.echo(f"page: {folder / 'drift.html'}")


data_app = typer.Typer(help="Published data sets by name: list them, fetch them, find them.", no_args_is_help=True)
app.add_typer(data_app, name="data")


@data_app.command("list")
def data_list(as_json: Json = False) -> None:
    """The known sets: images, classes, licence, whether their source wants a login, and where they lie."""
    from quantward.fetch import listed

    rows = listed()
    if as_json:
        _print_json({"sets": rows})
        return
    for row in rows:
        place = ", ".join(map(str, row.here.values())) or ("login" if row.login else "-")
        typer.echo(f"{row.name:22}{row.images:>9,}{len(row.classes):>4} classes  {row.licence[:28]:30}{place}")


@data_app.command("fetch")
def data_fetch(
    name: Annotated[str, typer.Argument(help="A set from quantward data list, for example pathmnist:size=64.")],
    out: Annotated[Path | None, typer.Option(help="A new folder for it ($QUANTWARD_DATA/NAME).")] = None,
    given: Annotated[
        list[Path] | None,
        typer.Option("--from", help="An archive or folder at hand, in place of the network; repeatable."),
    ] = None,
    apart: Annotated[Path | None, typer.Option(help="Other DATA: leave out images that look like one of its.")] = None,
    as_is: Annotated[bool, typer.Option("--as-is", help="Take a copy that differs from the published one.")] = False,
    as_json: Json = False,
) -> None:
    """Download a set (or take a copy at hand), check it, and make DATA of it, grouped by patient or lesion if known."""
    from quantward.fetch import fetch

    folder, record, fresh = fetch(name, out, given=given or (), apart=apart, as_is=as_is,
                                  tell=partial(typer.echo, err=True), track=_track(as_json))  # fmt: skip
    if as_json:
        from quantward.core.store import plain

        _print_json({"folder": folder, "fresh": fresh, **plain(record)})
        return
    for line in record.sentences():
        typer.echo(line)
    typer.echo(f"{'made' if fresh else 'was there'}: {folder}")


@data_app.command("where")
def data_where(
    name: Annotated[str, typer.Argument(help="A set from quantward data list.")], as_json: Json = False
) -> None:
    """The folder of a set that was fetched."""
    from quantward.fetch import where

    folder = where(name)
    if as_json:
        _print_json({"name": name, "folder": folder})
    else:
        typer.echo(folder)


@app.command("report")
def report_study(
    folder: Annotated[Path, typer.Argument(help="What --out of quantward study named; also while it still runs.")],
    mlflow: Annotated[
        str | None, typer.Option(help="Add each finished row to this MLflow server too (its address).")
    ] = None,
    as_json: Json = False,
) -> None:
    """A study's tables and figures beside the paper's: one page, and each table as CSV and LaTeX."""
    from quantward.study.report import write_all

    made = write_all(folder)
    found = made.document()
    if mlflow is not None:
        from quantward.study.export import to_mlflow

        found["mlflow"] = dict(zip(("added", "there"), to_mlflow(made.record, mlflow), strict=True))
    if as_json:
        _print_json(found)
        return
    rows = found["rows"]
    typer.echo(f"{rows['finished']:,} rows finished, {rows['failed']:,} failed, {rows['waiting']:,} waiting")
    if mlflow is not None:
        typer.echo(f"MLflow: {found['mlflow']['added']:,} runs added, {found['mlflow']['there']:,} were there")
    typer.echo(f"tables: {folder / 'tables'}\nreport: {made.page}")


@app.command()
def study(
    file: Annotated[Path, typer.Argument(help="A study file (YAML): what to train, quantize, write, run and compare.")],
    data: Annotated[Path, typer.Option(help="The folder that the paths of its data start from.")] = Path(),
    out: Annotated[Path | None, typer.Option(help="Folder for everything (the study's name).")] = None,
    scale: Annotated[str, typer.Option(help="full, or what the file says for laptop or smoke.")] = "full",
    smoke: Annotated[bool, typer.Option("--smoke", help="Short for --scale smoke.")] = False,
    engine: Annotated[str, typer.Option(help="Where steps run: local:jobs=2, ray:address=HOST:PORT.")] = "local",
    store: Annotated[str, typer.Option(help="Where results are kept: a folder or an fsspec URL (OUT/store).")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan with its estimated time.")] = False,
    as_json: Json = False,
) -> None:
    """Carry a study out, or go on with it: a grid of trials, resumable, then its table and its report."""
    from rich.console import Console

    from quantward.study.live import show_rows, watching
    from quantward.study.run import plan_lines, study_plan, study_run

    scale = "smoke" if smoke else scale
    tell = partial(typer.echo, err=True)
    if dry_run:
        planned = study_plan(file, data, out, scale=scale, store=store, tell=tell, track=_track(as_json))
        if as_json:
            _print_json(planned.document())
        else:
            typer.echo("\n".join(plan_lines(planned)))
        return
    command = " ".join(["quantward", *sys.argv[1:]])
    with watching(Console(stderr=True), (lambda line: None) if as_json else tell) as watch:
        done = study_run(file, data, out, scale=scale, engine=engine, store=store, command=command, watch=watch,
                         tell=tell, track=_track(as_json))  # fmt: skip
    if as_json:
        _print_json(done.document())
    else:
        show_rows(done.record, _console())
        typer.echo(f"report: {done.report}")
    raise typer.Exit(FAILED if done.failed else PASS)


@app.command("list")
def list_entries(as_json: Json = False) -> None:
    """Every recipe, target, runtime, training stage and gate that is installed, with one line on each."""
    from quantward.core.registry import Registry

    kinds = {
        "recipe": "quantward.quantize.recipes",
        "target": "quantward.targets",
        "runtime": "quantward.runtimes",
        "stage": "quantward.train.stages",
        "gate": "quantward.evaluate.gates",
    }
    found = {
        kind: {name: registry.summary(name) for name in registry.names()}
        for kind, registry in ((kind, Registry(kind, package)) for kind, package in kinds.items())
    }
    if as_json:
        _print_json(found)
        return
    for kind, entries in found.items():
        typer.echo(f"{kind}s")
        for name, line in entries.items():
            typer.echo(f"  {name:24} {line}")


if __name__ == "__main__":
    main()

"""Our INT8 after training against other tools' on the same FP32 file and the same images, judged on the deployed files.

    pip install nncf
    python benchmarks/peers.py RUN DATA [--samples 200]

Every tool gets our exported FP32 file and the run's `calibrate` images, in its default and its best setting; every
file runs on ONNX Runtime over the run's test images. `against ours` is that tool's accuracy less ours, paired, with
Tango's 95 % interval (per cent points); KL is the mean divergence from FP32's probabilities (nats).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from quantward.core.contracts import Batch
from quantward.core.store import digest_file
from quantward.core.values import Predictions, Variant
from quantward.evaluate.paired import compare
from quantward.find import divergence
from quantward.runs import open_run
from quantward.workbench import cached, calibration, open_session, plan_with, predictions_of, write_with

OURS = {
    "Quantward, default": "int8-static",
    "Quantward, adaptive rounding": "int8-static:rounding=adaptive",
}
Images = Callable[[], Iterator[Batch]]


def onnxruntime_static(model: Path, out: Path, images: Images, **options: Any) -> None:
    from onnxruntime import quantization as q
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(q.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = ({"input": batch[i : i + 1]} for batch in images() for i in range(len(batch)))

        def get_next(self) -> dict[str, Batch] | None:
            return next(self.left, None)

    prepared = out.with_suffix(".prepared.onnx")
    quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
    q.quantize_static(str(prepared), str(out), Reader(), quant_format=q.QuantFormat.QDQ,
                      activation_type=q.QuantType.QUInt8, weight_type=q.QuantType.QInt8, **options)  # fmt: skip


def nncf_quantize(model: Path, out: Path, images: Images, **options: Any) -> None:
    import nncf

    samples = [{"input": batch[i : i + 1]} for batch in images() for i in range(len(batch))]
    quantized = nncf.quantize(onnx.load(model), nncf.Dataset(samples), subset_size=len(samples), **options)
    onnx.save(quantized, out)


def peers() -> dict[str, Callable[[Path, Path, Images], None]]:
    import nncf
    from onnxruntime.quantization import CalibrationMethod

    def ort(**options: Any) -> Callable[[Path, Path, Images], None]:
        return lambda model, out, images: onnxruntime_static(model, out, images, **options)

    def openvino(**options: Any) -> Callable[[Path, Path, Images], None]:
        return lambda model, out, images: nncf_quantize(model, out, images, **options)

    return {
        "ONNX Runtime, default (per tensor, min-max)": ort(),
        "ONNX Runtime, per channel, min-max": ort(per_channel=True),
        "ONNX Runtime, per channel, percentile": ort(
            per_channel=True, calibrate_method=CalibrationMethod.Percentile, extra_options={"CalibPercentile": 99.99}
        ),
        "ONNX Runtime, per channel, entropy": ort(per_channel=True, calibrate_method=CalibrationMethod.Entropy),
        "NNCF, default": openvino(),
        "NNCF, mixed preset, accurate bias correction": openvino(
            preset=nncf.QuantizationPreset.MIXED, fast_bias_correction=False
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--samples", type=int, default=200)
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    run = open_run(given.run, given.data)
    pixels = cached(run.dataset, run.plan.preprocess)
    context = calibration(pixels, run.fold, run.plan.preprocess)
    samples = min(given.samples, len(run.fold.calibrate))

    def images() -> Iterator[Batch]:
        return context.images(samples)

    def said(variant: Variant) -> Predictions:
        session = open_session(variant, "onnxruntime", 1)
        return predictions_of(session, run.dataset, run.fold.test, pixels, variant.preprocess, variant.name)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        float_file = write_with("onnx-cpu", plan_with("fp32", run.plan, context), folder / "fp32")
        found = {"FP32": said(float_file)}
        for title, recipe in OURS.items():
            spelled = f"{recipe}{',' if ':' in recipe else ':'}samples={samples}"
            found[title] = said(write_with("onnx-cpu", plan_with(spelled, run.plan, context), folder / "ours"))
        for title, make in peers().items():
            out = folder / f"{len(found)}.onnx"
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    make(float_file.path, out, images)
                found[title] = said(replace(float_file, name=title, path=out, sha256=digest_file(out)))
            except Exception as error:  # whatever another tool raises is a row of the table, not our end
                print(f"{title}: failed, {str(error).partition(chr(10))[0][:200]}", flush=True)
    show(found, samples)


def show(found: dict[str, Predictions], samples: int) -> None:
    base, ours = found["FP32"], found["Quantward, default"]
    print(f"{len(base)} test images, {samples} calibration images\n")
    print(
        "| tool | accuracy, % | drop from FP32 | against ours | same class as FP32, % | KL |\n|---|---|---|---|---|---|"
    )
    for title, one in found.items():
        cells = [f"{100 * float((one.probabilities.argmax(1) == one.truth).mean()):.1f}"]
        for other in (base, ours):
            change = compare(other, one, replicates=200).deltas["accuracy"]
            assert change.delta is not None and change.low is not None and change.high is not None
            cells.append(f"{100 * change.delta:+.1f} ({100 * change.low:+.1f} to {100 * change.high:+.1f})")
        same = 100 * float((one.probabilities.argmax(1) == base.probabilities.argmax(1)).mean())
        print(f"| {title} | {' | '.join(cells)} | {same:.1f} | {divergence(base, one):.4f} |", flush=True)


if __name__ == "__main__":
    main()

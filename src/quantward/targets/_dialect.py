"""How the runtimes of a target want the same Plan told: the few points in which ONNX files for them differ."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Dialect:
    """`integer_clips`: a clamp before a quantizer becomes a clip of integers behind it, else it stays a float step.
    `integer_biases`: biases of integer layers lie as int32 behind DequantizeLinear, else in float32.
    `blocks`: weights in blocks stay INT4 behind a blocked DequantizeLinear, else they are unpacked by float arithmetic.
    `packs`: weights of 4 bits and fewer lie several in a byte and are widened in the graph.
    """

    integer_clips: bool = True
    integer_biases: bool = True
    blocks: bool = False
    packs: bool = True


CPU = Dialect()
TENSORRT = Dialect(integer_clips=False, integer_biases=False, blocks=True, packs=False)

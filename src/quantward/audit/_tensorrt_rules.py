"""What TensorRT takes and what it runs well, rule by rule; each docstring names where NVIDIA says so.

Sources: [types] TensorRT documentation, "Working with quantized types", with its pages "Quantization schemes",
"Quantization workflows" and "Explicit quantization" (10.x and 11.x); [operators] docs/operators.md of onnx-tensorrt at
10.15; [parser] QuantDequantLinearHelper in onnxOpImporters.cpp of onnx-tensorrt 10; [opset] TensorRT documentation,
"ONNX opset guide". Numbers like TensorRT#1992 are issues of NVIDIA's repository in which its engineers answer.

A rule takes a graph and yields (names of nodes, sentence). `REFUSED` keep TensorRT from reading the file or building
an engine, or change what it computes; `SLOW` leave a layer in float or split a kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from quantward.audit._onnx_graph import MOVES, Graph, Step

Breaches = Iterator[tuple[tuple[str, ...], str]]
Rule = Callable[[Graph], Breaches]

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
STORED = {"INT8", "INT4", "FLOAT8E4M3FN", "FLOAT4E2M1"}
"""[parser] The only types of quantized values: S8, S4 (weights), FP8 E4M3 and FP4 E2M1."""

FLOATS = {"FLOAT", "FLOAT16", "BFLOAT16"}
INTEGERS = {"INT8", "UINT8", "INT4", "UINT4", "INT16", "UINT16", "INT2", "UINT2"}

FOREIGN = {
    "ConvInteger", "DynamicQuantizeLinear", "DynamicQuantizeMatMul", "MatMulInteger", "MatMulIntegerToFloat",
    "MatMulNBits", "QAttention", "QGemm", "QLinearAdd", "QLinearConv", "QLinearGlobalAveragePool", "QLinearMatMul",
}  # fmt: skip
"""[operators] Integer operators without an importer: TensorRT makes its own from quantize/dequantize pairs."""

LAYERS = {"Conv": 0, "ConvTranspose": 1, "Gemm": 1, "MatMul": -1}
"""Layers that multiply by a stored weight, with the weight's axis of output channels (Gemm with transB: 0)."""

POINTWISE = {"Clip", "Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "Relu", "Sigmoid", "Tanh"}
"""Functions that TensorRT runs inside the kernel of the layer before them."""

LOWEST, HIGHEST = 9, 25
"""[opset] The opsets that TensorRT 11 reads."""

BLOCKS = (64, 128)


def opset(graph: Graph) -> Breaches:
    """[opset]: "Minimum opset 9, maximum opset 25" for TensorRT 11; docs/tensorrt.md lists older releases."""
    if not LOWEST <= graph.opset <= HIGHEST:
        yield (), f"Expected an opset from {LOWEST} to {HIGHEST}; the file has {graph.opset}. Export it again."


def operators(graph: Graph) -> Breaches:
    """[operators]: QLinear*, ConvInteger, MatMulInteger and DynamicQuantizeLinear are listed as not supported
    (onnx-tensorrt#560: "we only support QuantizeLinear and DequantizeLinear")."""
    for step in graph.steps:
        if step.op in FOREIGN:
            yield (step.name,), f"{step.op} has no importer. Write a quantize/dequantize pair instead."


def types(graph: Graph) -> Breaches:
    """[parser] `checkQuantizationDatatype`: "TensorRT only allows FP8, INT8, INT4 and FP4 quantization". An unsigned
    zero point is taken for INT8 with no more than a warning, which changes every value above 127."""
    for step in _pairs(graph):
        kind = _type(graph, step)
        if kind not in STORED and not _is_bias(graph, step):
            yield (step.name,), f"The quantized type is {kind}; use INT8 (signed=true), INT4 weights or FP8."


def zero_points(graph: Graph) -> Breaches:
    """[operators]: "`y_zero_point` must be 0", "`x_zero_point` must be zero"; [parser] `shiftIsAllZeros`."""
    for step in _pairs(graph):
        if len(step.inputs) < 3 or not step.inputs[2]:
            continue
        zero = graph.array(step.inputs[2])
        if zero is None:
            yield (step.name,), "The zero point is computed; it must be a constant 0."
        elif np.any(zero):
            yield (step.name,), f"The zero point is {np.ravel(zero)[np.flatnonzero(zero)[0]]}; it must be 0."


def scales(graph: Graph) -> Breaches:
    """[parser]: "Scale coefficients must all be positive", of type FP32, FP16 or BF16; [types]: scales of quantized
    layers are build-time constants. The zero point has as many entries as the scale."""
    for step in _pairs(graph):
        name = step.inputs[1]
        kind, values = graph.kind(name), graph.array(name)
        if kind is None or values is None:
            yield (step.name,), "The scale is computed; it must be a constant."
        elif kind not in FLOATS:
            yield (step.name,), f"The scale is {kind}; it must be a float."
        elif values.size == 0 or not np.all(np.isfinite(values)) or np.any(values <= 0):
            yield (step.name,), "A scale is not positive and finite."
        elif (zeros := _count(graph, step.inputs[2:3])) not in (None, values.size):
            yield (step.name,), f"{values.size} scales and {zeros} zero points; they must be as many."


def biases(graph: Graph) -> Breaches:
    """TensorRT refuses a DequantizeLinear on int32 ("only activation types allowed as input to this layer",
    onnx-tensorrt#850, onnxruntime#14229): biases stay in float, and are added in float."""
    for step in graph.steps:
        if _is_bias(graph, step):
            yield (step.name,), "A bias lies as int32 behind DequantizeLinear; keep it in float (QuantizeBias=False)."


def only_pairs(graph: Graph) -> Breaches:
    """[operators]: INT8, INT4, FP8 and FP4 are available "only through quantization"; Clip, Cast, Mul and the rest do
    not list them. So nothing but DequantizeLinear may read a quantized value (moves may stand in between)."""
    for step in graph.steps:
        if step.op in (DEQUANTIZE, *FOREIGN):
            continue
        for name in step.inputs:
            maker = graph.makers.get(graph.origin(name))
            stored = graph.kind(name) in INTEGERS or (maker is not None and maker.op == QUANTIZE)
            is_zero = step.op == QUANTIZE and name in step.inputs[2:]
            if stored and not is_zero and step.op not in MOVES:
                yield (step.name,), f"{step.op} reads the quantized value {name!r}; only DequantizeLinear may."


def dangling(graph: Graph) -> Breaches:
    """[types] "Explicit quantization": every conversion is a pair; a quantizer that nothing dequantizes, or a
    dequantizer of a value that no quantizer made and no constant is, has no meaning to the builder."""
    for step in graph.steps:
        if step.op == QUANTIZE and step.outputs[0] not in graph.outputs and not _ends_in(graph, step.outputs[0]):
            yield (step.name,), "Nothing dequantizes what this quantizer makes."
        if step.op == DEQUANTIZE:
            source = graph.origin(step.inputs[0])
            maker = graph.makers.get(source)
            if maker is None and source not in graph.constants and source not in graph.inputs:
                yield (step.name,), f"It reads {source!r}, which nothing makes."
            if maker is not None and maker.op == QUANTIZE and not _same_grid(graph, maker, step):
                yield (maker.name, step.name), "A quantizer and its dequantizer have different scales."
            elif maker is not None and maker.op != QUANTIZE:
                yield (step.name,), f"It dequantizes what {maker.op} {maker.name!r} makes, which is no quantizer."


def granularity(graph: Graph) -> Breaches:
    """[parser]: "Activations-quantization does not support per-axis quantization"; [types]: activations per tensor."""
    for step in _pairs(graph):
        if not _constant(graph, step) and (count := _scale_count(graph, step)) != 1:
            yield (step.name,), f"An activation has {count} scales; activations have one."


def axes(graph: Graph) -> Breaches:
    """[parser]: "The number of scales is not equal to the number of output channels"; [types]: a weight's scales lie
    along its output channels (axis 0 of a convolution, 1 of a transposed one, the columns of a matrix)."""
    for layer, step in _weights(graph):
        shape, count = _weight_shape(graph, step), _scale_count(graph, step)
        if shape is None or count == 1 or len(graph.shape(step.inputs[1]) or ()) != 1:
            continue
        axis = int(step.attributes.get("axis", 1)) % len(shape)
        wanted = LAYERS[layer.op] % len(shape)
        if layer.op == "Gemm" and layer.attributes.get("transB", 0):
            wanted = 0
        if axis != wanted:
            yield (step.name, layer.name), f"The weight's scales lie along axis {axis}; {layer.op} wants {wanted}."
        elif shape[axis] != count:
            yield (step.name, layer.name), f"The weight has {shape[axis]} output channels and {count} scales."


def blocks(graph: Graph) -> Breaches:
    """[types]: INT4 "requires per-block scales", "supported block sizes are {64, 128}", "WoQ is available only for
    INT4 block quantization with GEMM layers"; [parser]: "Only a single blocking dimension is allowed", an even number
    of elements. Blocks run along the inputs (K), and the matrix is the right-hand operand."""
    for step in graph.steps:
        if step.op != DEQUANTIZE or graph.kind(_stored(graph, step) or "") not in ("INT4", "UINT4"):
            scale = graph.shape(step.inputs[1]) if step.op in (QUANTIZE, DEQUANTIZE) else None
            if scale is not None and len(scale) > 1 and _type(graph, step) == "INT8":
                yield (step.name,), "INT8 in blocks; INT8 has one scale a tensor or a channel."
            continue
        users = graph.readers.get(step.outputs[0], [])
        names = (step.name, *(user.name for user in users))
        shape, scale = _weight_shape(graph, step) or (), graph.shape(step.inputs[1]) or ()
        if any(user.op not in ("MatMul", "Gemm") for user in users):
            yield names, "INT4 weights are for matrix products; a convolution or another step reads these."
        elif len(shape) != 2 or len(scale) != 2:
            yield names, f"INT4 weights of shape {shape} with scales {scale}; they need blocks of one axis of a matrix."
        else:
            sizes = [whole / parts if parts else 0.0 for whole, parts in zip(shape, scale, strict=True)]
            if sizes[1] != 1 or sizes[0] not in BLOCKS:
                yield names, f"Blocks of {sizes[0]:g} x {sizes[1]:g}; they must be 64 or 128 along the inputs."
            elif any(user.inputs[1] != step.outputs[0] or user.attributes.get("transB", 0) for user in users):
                yield names, "The INT4 matrix must be the right-hand operand as it lies, (inputs, outputs)."


def integer_layers(graph: Graph) -> Breaches:
    """[types] "Quantize all inputs of weighted operations": a layer runs in INT8 only where both sides come from
    DequantizeLinear. Of weights alone TensorRT runs INT4 in blocks and nothing else ("WoQ is available only for INT4
    block quantization"); an INT8 weight beside a float activation finds no kernel."""
    for layer, step in _weights(graph):
        if _type(graph, step) == "INT8" and _dequantizer(graph, layer.inputs[0]) is None:
            yield (layer.name, step.name), f"{layer.op} reads an INT8 weight and a float activation; quantize both."


def half_quantized(graph: Graph) -> Breaches:
    """[types] "Quantize all inputs of weighted operations": beside a float weight a quantized activation is
    dequantized first, and the layer runs in float."""
    of_weights = {layer.name for layer, _ in _weights(graph)}
    for layer in _layers(graph):
        plain = layer.name not in of_weights and layer.inputs[1] in graph.constants
        if plain and _dequantizer(graph, layer.inputs[0]) is not None:
            yield (layer.name,), f"{layer.op} reads a quantized activation and a float weight: it runs in float."


def split_sums(graph: Graph) -> Breaches:
    """[types] "Quantize the residual input in skip-connections", and only that: a layer adds the residual in its own
    kernel, which a pair behind the layer splits in two. TensorRT#1992, TensorRT#3861; Model Optimizer's
    `build_non_residual_input_map` leaves the same side alone."""
    for step in graph.steps:
        if step.op == "Add" and all(_dequantizer(graph, name) is not None for name in step.inputs):
            own = next((found for name in step.inputs if (found := _pair_behind_layer(graph, name)) is not None), None)
            if own is not None:
                names = (step.name, own)
                yield names, "Both sides of a residual sum are quantized; leave the layer's own side in float."


def split_layers(graph: Graph) -> Breaches:
    """[types] "By default, don't quantize the outputs of weighted operations" (TensorRT#2383): a pair between a layer
    and its ReLU, SiLU, GELU or the like keeps the function out of the layer's kernel and rounds once more."""
    for step in graph.steps:
        if step.op in POINTWISE and step.inputs and _pair_behind_layer(graph, step.inputs[0]) is not None:
            yield (step.name,), f"A quantizer stands between a layer and its {step.op}; move it behind."


REFUSED: dict[str, Rule] = {
    "opset": opset,
    "operators": operators,
    "types": types,
    "zero-points": zero_points,
    "scales": scales,
    "biases": biases,
    "only-pairs": only_pairs,
    "dangling": dangling,
    "granularity": granularity,
    "axes": axes,
    "blocks": blocks,
    "integer-layers": integer_layers,
}
SLOW: dict[str, Rule] = {"half-quantized": half_quantized, "split-sums": split_sums, "split-layers": split_layers}


def _pairs(graph: Graph) -> list[Step]:
    return [step for step in graph.steps if step.op in (QUANTIZE, DEQUANTIZE)]


def _layers(graph: Graph) -> list[Step]:
    return [step for step in graph.steps if step.op in LAYERS and len(step.inputs) > 1]


def _stored(graph: Graph, step: Step) -> str | None:
    """The constant that a dequantizer reads, itself or through moves."""
    source = graph.origin(step.inputs[0])
    return source if source in graph.constants else None


def _constant(graph: Graph, step: Step) -> bool:
    """Whether a pair belongs to a weight: a stored constant, or a float constant that is quantized at build time."""
    source = graph.origin(step.inputs[0])
    maker = graph.makers.get(source)
    if maker is not None and maker.op == QUANTIZE:
        source = graph.origin(maker.inputs[0])
    return source in graph.constants


def _type(graph: Graph, step: Step) -> str:
    """The quantized type of a quantizer or dequantizer, as ONNX infers it."""
    if step.op == DEQUANTIZE:
        stored, maker = _stored(graph, step), graph.makers.get(graph.origin(step.inputs[0]))
        if stored is not None:
            return graph.kind(stored) or ""
        if maker is not None and maker.op == QUANTIZE:
            return _type(graph, maker)
    if len(step.inputs) > 2 and step.inputs[2]:
        return graph.kind(step.inputs[2]) or "a computed type"
    given = int(step.attributes.get("output_dtype", 0)) if step.op == QUANTIZE else 0
    if given:
        import onnx

        found: str = onnx.TensorProto.DataType.Name(given)
        return found
    return "INT8" if step.op == DEQUANTIZE else "UINT8"  # ONNX: a quantizer without a zero point makes UINT8


def _is_bias(graph: Graph, step: Step) -> bool:
    return step.op == DEQUANTIZE and graph.kind(step.inputs[0]) == "INT32"


def _same_grid(graph: Graph, one: Step, two: Step) -> bool:
    first, second = graph.array(one.inputs[1]), graph.array(two.inputs[1])
    return first is None or second is None or np.array_equal(first.ravel(), second.ravel())


def _count(graph: Graph, names: tuple[str, ...]) -> int | None:
    """How many entries the first of some constants has; None for no name, and for what is computed."""
    shape = graph.shape(names[0]) if names else None
    return None if shape is None else int(np.prod(shape))


def _scale_count(graph: Graph, step: Step) -> int:
    return _count(graph, step.inputs[1:2]) or 1


def _ends_in(graph: Graph, name: str) -> bool:
    """Whether every reader of a quantized value dequantizes it, after moves if need be; False for none at all."""
    users = graph.readers.get(name, [])
    return bool(users) and all(
        user.op == DEQUANTIZE or (user.op not in LAYERS and _ends_in(graph, user.outputs[0])) for user in users
    )


def _dequantizer(graph: Graph, name: str) -> Step | None:
    """The dequantizer that a value comes from, through moves."""
    maker = graph.makers.get(graph.origin(name))
    return maker if maker is not None and maker.op == DEQUANTIZE else None


def _weights(graph: Graph) -> list[tuple[Step, Step]]:
    """Every layer whose right-hand operand is a dequantized constant, with its dequantizer."""
    found = []
    for layer in _layers(graph):
        step = _dequantizer(graph, layer.inputs[1])
        if step is not None and _constant(graph, step):
            found.append((layer, step))
    return found


def _weight_shape(graph: Graph, step: Step) -> tuple[int, ...] | None:
    stored = _stored(graph, step)
    if stored is None and (maker := graph.makers.get(graph.origin(step.inputs[0]))) is not None:
        stored = graph.origin(maker.inputs[0])
    return None if stored is None else graph.shape(stored)


def _pair_behind_layer(graph: Graph, name: str) -> str | None:
    """The quantizer between a value and the layer that made it, where nothing else reads either of them."""
    step = _dequantizer(graph, name)
    maker = None if step is None else graph.makers.get(graph.origin(step.inputs[0]))
    if step is None or maker is None or maker.op != QUANTIZE:
        return None
    made = graph.makers.get(maker.inputs[0])
    if made is None or made.op not in LAYERS:
        return None
    chain = (maker.inputs[0], maker.outputs[0], step.outputs[0])
    return maker.name if all(len(graph.readers[value]) == 1 for value in chain) else None

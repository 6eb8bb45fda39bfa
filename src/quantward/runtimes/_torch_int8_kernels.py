"""One layer on one of torch's integer engines: weights packed once, then a callable from tensor to tensor.

Two families of operators do the work. `quantized::` reads and writes quantized tensors and exists for every engine.
`onednn::q*_pointwise` works on plain bytes, and also writes floats and computes the activation behind the layer; a
quantized tensor and a plain one share their memory, so going from one family to the other copies nothing.

fbgemm multiplies bytes with an instruction that adds two products in 16 bits. Where |w1| + |w2| > 128 the sum of two
products with 255 does not fit and saturates: everywhere on processors without VNNI, and in depthwise convolutions on
all of them. So the kernel is tried on such weights once, and a layer that would be wrong goes to another kernel.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from quantward.core.values import Node, QuantSpec
from quantward.graph.archive import Archive
from quantward.graph.walk import CONV, bias_of, weight_of

Engine = Literal["fbgemm", "qnnpack", "x86", "onednn"]
Kernel = Callable[..., Tensor]


class Grid(NamedTuple):
    """An activation's grid as torch holds it: unsigned, 8 bits."""

    scale: float
    zero: int

    def holds(self, value: float) -> int:
        """The integer that `value` becomes, not yet held within 0..255."""
        return round(value / self.scale) + self.zero


class Post(NamedTuple):
    """What oneDNN computes behind a layer: a name of its own, its parameters, its variant."""

    name: str = "none"
    scalars: tuple[float, ...] = ()
    variant: str = ""


NOTHING = Post()


def grid_of(spec: QuantSpec) -> Grid:
    """A spec's grid, moved up by 128 where it is signed: the same values on unsigned integers.

    >>> grid_of(QuantSpec("activation", signed=True, scale=np.float32(0.5)))
    Grid(scale=0.5, zero=128)
    """
    return Grid(float(spec.scale), int(spec.zero_point) + (128 if spec.signed else 0))


@dataclass(frozen=True, eq=False)
class Layer:
    """A convolution or linear layer with its weights as torch tensors: int8, one float32 scale a row, float bias."""

    name: str
    weight: Tensor
    scales: Tensor
    bias: Tensor | None
    conv: bool
    stride: tuple[int, ...] = (1, 1)
    padding: tuple[int, ...] = (0, 0)
    dilation: tuple[int, ...] = (1, 1)
    groups: int = 1

    @property
    def geometry(self) -> tuple[list[int], list[int], list[int], int]:
        """Stride, padding, dilation, groups, as torch's operators take them."""
        return list(self.stride), list(self.padding), list(self.dilation), self.groups

    @property
    def pairs_may_saturate(self) -> bool:
        """Whether two products of a row could leave 16 bits: 255 (|w1| + |w2|) > 32767."""
        top = self.weight.abs().flatten(1).to(torch.int16).topk(min(2, self.weight[0].numel()), dim=1).values
        return bool((top.sum(1) > 128).any())

    def floats(self) -> Tensor:
        """The weight as float32."""
        return self.weight.float() * self.scales.reshape(-1, *[1] * (self.weight.dim() - 1))

    def quantized(self) -> Tensor:
        """The weight as a quantized tensor of torch, one scale a row."""
        zeros = torch.zeros(len(self.scales), dtype=torch.int64)
        made: Tensor = torch._make_per_channel_quantized_tensor(self.weight, self.scales.double(), zeros, 0)
        return made


def layer_of(archive: Archive, node: Node) -> Layer:
    """Gather what a layer of the program multiplies with."""
    spec = archive.tensors[weight_of(node)]
    weight = torch.from_numpy(archive.arrays[weight_of(node)])
    scales = torch.from_numpy(np.broadcast_to(np.asarray(spec.scale, np.float32), (len(weight),)).copy())
    bias = None
    if (name := bias_of(node)) is not None:
        array = archive.arrays[name]
        if (own := archive.tensors.get(name)) is not None:
            array = (array.astype(np.float64) * np.asarray(own.scale, np.float64)).astype(np.float32)
        bias = torch.from_numpy(array)
    if node.op != CONV:
        return Layer(node.name, weight, scales, bias, conv=False)
    given = [*node.args[3:], *[None] * 4]
    stride, padding, dilation = (_pair(value, default) for value, default in zip(given, (1, 0, 1), strict=False))
    return Layer(node.name, weight, scales, bias, True, stride, padding, dilation, int(given[3] or 1))


def _pair(value: Any, default: int) -> tuple[int, int]:
    if value is None:
        return default, default
    numbers = [value] if isinstance(value, int) else list(value)
    return (numbers[0], numbers[-1])


@contextlib.contextmanager
def using(engine: Engine) -> Iterator[None]:
    """While open, torch packs weights for this engine; what is packed runs on it from then on."""
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = engine
    try:
        yield
    finally:
        torch.backends.quantized.engine = before


def plain(x: Tensor) -> Tensor:
    """The bytes of a quantized tensor, on the same memory."""
    return torch.empty(0, dtype=torch.uint8).set_(x.untyped_storage(), x.storage_offset(), x.shape, x.stride())


def graded(x: Tensor, grid: Grid) -> Tensor:
    """Bytes as a quantized tensor, on the same memory."""
    made = torch._empty_affine_quantized([0], scale=grid.scale, zero_point=grid.zero, dtype=torch.quint8)
    return made.set_(x.untyped_storage(), x.storage_offset(), x.shape, x.stride())


def to_quantized(layer: Layer, engine: Engine, relu: bool, out: Grid) -> Kernel:
    """Quantized tensor -> quantized tensor: (q_x - z_x) * q_w + bias in int32, then rescaled to `out`."""
    pack = _packed(layer, engine)
    ops = torch.ops.quantized
    if layer.conv:
        op = ops.conv2d_relu.new if relu else ops.conv2d.new
    else:
        op = (ops.linear_relu if relu else ops.linear).default
    scale, zero = out
    return lambda x: op(x, pack, scale, zero)


def to_floats(layer: Layer, engine: Engine, source: Grid) -> Kernel:
    """Float tensor -> float tensor of a linear layer: rounded to `source`, multiplied as integers (fbgemm, x86)."""
    pack = _packed(layer, engine)
    op = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32.default
    scale, zero = source
    return lambda x: op(x, scale, zero, pack)


def dynamic(layer: Layer, engine: Engine) -> Kernel:
    """Float tensor -> float tensor, on the range of all of it."""
    if engine != "onednn":
        pack = _packed(layer, engine)
        op = torch.ops.quantized.linear_dynamic.default
        return lambda x: op(x, pack, False)
    inner = _pointwise(layer, Grid(1.0, 0), NOTHING, None, None)

    def run(x: Tensor) -> Tensor:
        low, high = (float(end) for end in torch.aminmax(x))
        low, high = min(low, 0.0), max(high, 0.0)
        scale = (high - low) / 255 or 1.0
        grid = Grid(scale, min(max(round(-low / scale), 0), 255))
        x = x.contiguous(memory_format=torch.channels_last) if layer.conv else x
        return inner(plain(torch.quantize_per_tensor(x, grid.scale, grid.zero, torch.quint8)), grid)

    return run


def pointwise(layer: Layer, source: Grid, post: Post, out: Grid | None, shape: tuple[int, ...] | None) -> Kernel:
    """Quantized tensor -> quantized tensor on `out`, or float tensor where that is None; `post` runs in the kernel.

    `shape` of the input, where known, lets oneDNN choose the layout of the weights for it.
    """
    kernel = _pointwise(layer, source, post, out, shape)
    if out is None:
        return lambda x: kernel(plain(x), source)
    return lambda x: graded(kernel(plain(x), source), out)


def _pointwise(layer: Layer, source: Grid, post: Post, out: Grid | None, shape: tuple[int, ...] | None) -> Kernel:
    """Plain bytes and their grid -> plain bytes or floats."""
    weight, zeros = _onednn_weight(layer, source, shape), torch.zeros(len(layer.scales), dtype=torch.int32)
    scale, zero = out or Grid(1.0, 0)
    kind = torch.float32 if out is None else torch.uint8
    after = (scale, zero, kind, post.name, list(post.scalars), post.variant)
    scales, bias, geometry = layer.scales, layer.bias, layer.geometry
    if layer.conv:
        conv = torch.ops.onednn.qconv_pointwise.default
        return lambda x, grid: conv(x, grid.scale, grid.zero, weight, scales, zeros, bias, *geometry, *after)
    linear = torch.ops.onednn.qlinear_pointwise.default
    return lambda x, grid: linear(x, grid.scale, grid.zero, weight, scales, zeros, bias, *after)


def _onednn_weight(layer: Layer, source: Grid, shape: tuple[int, ...] | None) -> Tensor:
    dims = None if shape is None else list(shape)
    if layer.conv:
        packed: Tensor = torch.ops.onednn.qconv_prepack(
            layer.weight, layer.scales, source.scale, source.zero, *layer.geometry, dims
        )
        return packed
    packed = torch.ops.onednn.qlinear_prepack(layer.weight, dims)
    return packed


def _packed(layer: Layer, engine: Engine) -> Any:
    """The weights in the order an engine reads them (x86 is oneDNN for convolutions and fbgemm for linear layers)."""
    with using("fbgemm" if engine == "x86" and not layer.conv else engine):
        if layer.conv:
            return torch.ops.quantized.conv2d_prepack(layer.quantized(), layer.bias, *layer.geometry)
        return torch.ops.quantized.linear_prepack(layer.quantized(), layer.bias)


def able(engine: Engine, layer: Layer, floats: bool, ranged: bool) -> bool:
    """Whether an engine has a kernel for a layer that writes floats, or finds its range at run time (`ranged`).

    torch's `conv2d_dynamic` is left out on purpose: it rounds its output to the grid of its input (torch 2.14), which
    cuts off whatever is larger.
    """
    if engine not in torch.backends.quantized.supported_engines or not exact(layer, engine):
        return False
    if engine == "onednn" or not floats:
        return True
    return not layer.conv and (ranged or engine != "qnnpack")


def exact(layer: Layer, engine: Engine) -> bool:
    """Whether this engine adds up a layer's products without saturating, on this processor."""
    if not layer.pairs_may_saturate:
        return True
    if not layer.conv:
        return _adds_up(engine, False, 64, 64, 1, 1)
    reads, writes = (layer.weight.shape[1], len(layer.weight)) if layer.groups > 1 else (64, 64)
    return _adds_up(engine, True, reads, writes, layer.groups, layer.weight.shape[-1])


@cache
def _adds_up(engine: Engine, conv: bool, reads: int, writes: int, groups: int, kernel: int) -> bool:
    """Try the worst case: all weights 127, all inputs 255, in a layer of the same kind (torch chooses a kernel by the
    number of groups too)."""
    shape = (writes, reads, kernel, kernel) if conv else (writes, reads)
    weight = torch.full(shape, 127, dtype=torch.int8)
    around = (kernel // 2, kernel // 2)  # fbgemm's depthwise kernels are only for images of unchanged size
    layer = Layer("trial", weight, torch.ones(len(weight)), None, conv, padding=around, groups=groups)
    size = (1, shape[1] * groups, kernel + 7, kernel + 7) if conv else (16, 64)
    x = torch.full(size, 255, dtype=torch.uint8)
    x = x.contiguous(memory_format=torch.channels_last) if conv else x
    wanted = 255.0 * 127 * weight[0].numel()
    out = Grid(wanted / 200, 0)
    made = to_quantized(layer, engine, False, out)(graded(x, Grid(1.0, 0)))
    inner = slice(kernel, -kernel) if conv else slice(None)
    return bool((made.int_repr()[..., inner, inner] == 200).all())

"""INT8 weights and activations with ranges fixed beforehand on calibration images: the fast and small one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from quantward.core.contracts import Context
from quantward.core.registry import spelling
from quantward.core.values import Plan
from quantward.quantize._patterns import kept_layers
from quantward.quantize._static import Bits, Static, static_plan, uniform


@dataclass(frozen=True)
class Int8Static(Static):
    """Symmetric INT8 weights, unsigned affine 8-bit activations, int32 biases.

    `calibrator` chooses each activation's range from its histogram over `samples` images; `equalise` (0 to 1) is how
    far channels are first brought to one range; `rounding=adaptive` rounds weights so that layers, and not weights,
    change least; `correct` takes the mean shift of rounding out of the biases; `per_channel=false` gives each weight
    tensor one scale, as the oldest tools did; `reduce_range` leaves the top bit of the weights unused, for processors
    whose 8-bit products saturate (those without VNNI); `placement=readers` stores only what integer kernels read, which
    OpenVINO runs fastest and ONNX Runtime slowest, `placement=joint` also keeps dense blocks (DenseNet) on one grid,
    which all run fastest; `signed` puts activations on signed grids around 0, which the target onnx-tensorrt needs;
    `keep` leaves matching layers in float. The naive baseline of most toolkits is
    `int8-static:calibrator=max,equalise=0,correct=false,per_channel=false`.
    """

    needs: ClassVar[Literal["images"]] = "images"
    reduce_range: bool = False
    keep: tuple[str, ...] = ()

    def plan(self, parent: Plan, context: Context) -> Plan:
        """Specs for all layers that are not kept."""
        bits = Bits(7 if self.reduce_range else 8, 8)
        table = uniform(parent.program, bits, kept=kept_layers(parent.program, self.keep))
        return static_plan(parent, context, table, self, spelling(self))

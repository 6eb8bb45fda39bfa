"""The few CUDA calls that an engine needs: memory on the device, copies, and a stream to wait for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from quantward.core.errors import Refused


def runtime() -> Any:
    """NVIDIA's binding of the CUDA runtime, under its present or its former name. Raises ImportError."""
    try:
        from cuda.bindings import runtime as found
    except ImportError:
        from cuda import cudart as found
    return found


def missing_cuda() -> str | None:
    """What to install, or that there is no device; None where all is there."""
    try:
        cuda = runtime()
    except ImportError:
        return "cuda-python is not installed; run: pip install cuda-python"
    try:
        error, count = cuda.cudaGetDeviceCount()
    except RuntimeError as broken:  # the binding loads the driver's library at the first call
        return f"the CUDA driver cannot be loaded ({broken}); install NVIDIA's driver"
    if int(error) != 0 or count < 1:
        return "no NVIDIA device can be seen; run this on a machine with one"
    return None


def called(cuda: Any, name: str, *arguments: Any) -> Any:
    """What a CUDA call returns beside its error code, None for nothing. Raises Refused with CUDA's own words."""
    error, *values = getattr(cuda, name)(*arguments)
    if int(error) != 0:
        words = getattr(error, "name", str(error))
        raise Refused(f"Expected {name} to succeed on the device; CUDA said {words}. Free memory, or restart it.")
    return values[0] if values else None


@dataclass
class Buffers:
    """Device memory by tensor name, kept and grown as needed, and the stream on which everything runs in order."""

    cuda: Any
    stream: Any = None
    held: dict[str, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.stream = called(self.cuda, "cudaStreamCreate")

    def room(self, name: str, size: int) -> int:
        """The address of at least `size` bytes for a tensor."""
        address, length = self.held.get(name, (0, 0))
        if length < size:
            if address:
                called(self.cuda, "cudaFree", address)
            address = int(called(self.cuda, "cudaMalloc", size))
            self.held[name] = (address, size)
        return address

    def send(self, name: str, values: npt.NDArray[Any]) -> int:
        """Copy an array to the device; returns its address."""
        address = self.room(name, values.nbytes)
        kind = self.cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        called(self.cuda, "cudaMemcpyAsync", address, values.ctypes.data, values.nbytes, kind, self.stream)
        return address

    def fetch(self, name: str, shape: tuple[int, ...], dtype: Any) -> npt.NDArray[Any]:
        """Copy a tensor back and wait until everything on the stream is done."""
        values = np.empty(shape, dtype)
        kind = self.cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        called(self.cuda, "cudaMemcpyAsync", values.ctypes.data, self.held[name][0], values.nbytes, kind, self.stream)
        called(self.cuda, "cudaStreamSynchronize", self.stream)
        return values

    def free(self) -> None:
        """Give the memory and the stream back."""
        for address, _ in self.held.values():
            called(self.cuda, "cudaFree", address)
        self.held.clear()
        if self.stream is not None:
            called(self.cuda, "cudaStreamDestroy", self.stream)
            self.stream = None

"""From a float weight to the integers a file stores, and back to what they are worth. NumPy only."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from quantward.core.values import FloatArray, QuantSpec


def to_integers(weight: FloatArray, spec: QuantSpec) -> npt.NDArray[np.int64]:
    """The integers that the file stores for a weight or bias.

    >>> spec = QuantSpec("weight", scale=np.float32(0.5))
    >>> to_integers(np.array([0.25, 0.26, 99.0], np.float32), spec).tolist()
    [0, 1, 127]
    """
    scale, zero = broadcast(spec, weight.shape)
    return np.clip(np.rint(weight / scale) + zero, spec.low, spec.high).astype(np.int64)


def stored_weight(weight: FloatArray, spec: QuantSpec) -> FloatArray:
    """What a stored weight is worth after it is read back, float32."""
    if spec.format == "float16":
        return weight.astype(np.float16).astype(np.float32)
    scale, zero = broadcast(spec, weight.shape)
    return ((to_integers(weight, spec) - zero) * scale).astype(np.float32)


def stored_scale(spec: QuantSpec) -> npt.NDArray[np.floating[Any]]:
    """The scales as a file holds them: those of blocks in half precision where that changes none, else float32.

    >>> spec = QuantSpec("weight", axis=0, block=2, scale=np.array([[0.5, 0.25]], np.float32))
    >>> stored_scale(spec).dtype.name, stored_scale(QuantSpec("weight")).dtype.name
    ('float16', 'float32')
    """
    whole = np.asarray(spec.scale, np.float32)
    if spec.block is not None:
        with np.errstate(over="ignore"):
            half = whole.astype(np.float16)
        if np.array_equal(half.astype(np.float32), whole):
            return half
    return whole


def broadcast(spec: QuantSpec, shape: tuple[int, ...]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Scale and zero point shaped so that they multiply an array of this shape, slice by slice or block by block.

    >>> spec = QuantSpec("weight", axis=0, block=2, scale=np.array([[1.0, 2.0]]), zero_point=np.zeros((1, 2)))
    >>> broadcast(spec, (1, 3))[0].tolist()
    [[1.0, 1.0, 2.0]]
    """
    scale, zero = np.asarray(spec.scale, np.float64), np.asarray(spec.zero_point, np.float64)
    if spec.block is not None:
        rest = int(np.prod(shape[1:]))
        return (
            np.repeat(scale, spec.block, axis=1)[:, :rest].reshape(shape),
            np.repeat(zero, spec.block, axis=1)[:, :rest].reshape(shape),
        )
    if spec.axis is None:
        return scale, zero
    slices = [1] * len(shape)
    slices[spec.axis] = -1
    return scale.reshape(slices), zero.reshape(slices)

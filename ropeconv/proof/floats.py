"""Stored numbers as float32 arrays, without torch. For looking; nothing is ever converted with it.

Source:
    float8: Micikevicius et al. 2022, https://arxiv.org/abs/2209.05433, table 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ropeconv.words.dtypes import DType

if TYPE_CHECKING:
    from numpy.typing import NDArray

FLOATS = (DType.F64, DType.F32, DType.F16, DType.BF16, DType.F8_E4M3, DType.F8_E5M2)


def to_array(dtype: DType, data: bytes | bytearray) -> NDArray[np.float32]:
    """The numbers that stored bytes of one of FLOATS mean; float64 is rounded.

    >>> to_array(DType.BF16, bytes([0x80, 0x3F])).tolist()
    [1.0]
    """
    values: NDArray[Any]
    match dtype:
        case DType.BF16:  # the upper half of a float32
            values = (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
        case DType.F8_E5M2:  # the upper half of a float16
            values = (np.frombuffer(data, np.uint8).astype(np.uint16) << 8).view(np.float16)
        case DType.F8_E4M3:
            values = _E4M3[np.frombuffer(data, np.uint8)]
        case _:
            values = np.frombuffer(
                data, {DType.F64: "<f8", DType.F32: "<f4", DType.F16: "<f2"}[dtype]
            )
    return values.astype(np.float32, copy=False)


def _e4m3() -> NDArray[np.float32]:
    """All 256 numbers: sign, 4 bits of exponent (bias 7), 3 of mantissa, no infinity."""
    bits = np.arange(256, dtype=np.uint16)
    # In the place of a float16's bits, whose bias is 15, each is 2^8 too small.
    values = ((bits & 0x80) << 8 | (bits & 0x7F) << 7).view(np.float16).astype(np.float32) * 2**8
    values[[0x7F, 0xFF]] = np.nan
    return values


_E4M3 = _e4m3()

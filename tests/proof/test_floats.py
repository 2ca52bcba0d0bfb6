"""Stored numbers read without torch: every 8 and 16-bit number there is, against torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ropeconv.proof.floats import FLOATS, to_array
from ropeconv.words.dtypes import DType

EVERY_BYTE = bytes(range(256))
EVERY_PAIR = np.arange(1 << 16, dtype="<u2").tobytes()
SOME = np.array([0.0, -0.0, 1.0, -1e-30, 3e38, np.inf, -np.inf, np.nan, 1e-45, 0.1])
STORED = {
    DType.F8_E4M3: EVERY_BYTE,
    DType.F8_E5M2: EVERY_BYTE,
    DType.F16: EVERY_PAIR,
    DType.BF16: EVERY_PAIR,
    DType.F32: SOME.astype("<f4").tobytes(),
    DType.F64: SOME.tobytes(),
}


@pytest.mark.parametrize("dtype", FLOATS)
def test_to_array_when_any_number_then_what_torch_reads(dtype: DType) -> None:
    data = bytearray(STORED[dtype])
    expected = torch.frombuffer(data, dtype=getattr(torch, dtype.torch_name)).float().numpy()
    values = to_array(dtype, bytes(data))

    assert values.dtype == np.float32
    np.testing.assert_array_equal(expected, values)
    known = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(expected[known]), np.signbit(values[known]))

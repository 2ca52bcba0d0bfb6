"""CRC-32 in parts: the folded sum and the combination against zlib, the trinomial against P."""

from __future__ import annotations

import random
import zipfile
import zlib
from itertools import pairwise
from pathlib import Path

import pytest
import torch

import ropeconv
from fixtures import make_small
from ropeconv.moving import sums
from ropeconv.moving.crc import FAR, NEAR, WORTHWHILE_NBYTES, Crc32Sum, crc32_spending

CRC_POLYNOMIAL = 0x104C11DB7  # x^32 + x^26 + ... + 1, highest power first


def power_of_x(exponent: int) -> int:
    """x^exponent modulo the CRC's polynomial, one factor at a time."""
    remainder = 1
    for _ in range(exponent):
        remainder <<= 1
        if remainder >> 32:
            remainder ^= CRC_POLYNOMIAL
    return remainder


def test_the_polynomial_divides_the_trinomial() -> None:
    assert power_of_x(FAR) ^ power_of_x(FAR - NEAR) ^ 1 == 0


@pytest.mark.parametrize(
    "nbytes",
    [
        0,
        1,
        3,
        WORTHWHILE_NBYTES - 1,
        WORTHWHILE_NBYTES,
        WORTHWHILE_NBYTES + 1,
        FAR + 3 * NEAR - 1,
        FAR + 3 * NEAR,
        1 << 20,
        (1 << 21) + 12345,
    ],
)
@pytest.mark.parametrize("shift", [0, 1, 13])
def test_a_folded_sum_is_zlibs(nbytes: int, shift: int) -> None:
    data = bytearray(random.Random(nbytes).randbytes(nbytes + shift))
    expected = zlib.crc32(memoryview(data)[shift:])
    assert crc32_spending(memoryview(data)[shift:]) == expected


def test_parts_in_any_order_give_the_whole() -> None:
    data = random.Random(7).randbytes(5000)
    cuts = [0, 1, 700, 701, 2048, 4999, 5000]
    parts = [(begin, data[begin:end]) for begin, end in pairwise(cuts)]
    random.Random(8).shuffle(parts)
    total = Crc32Sum(len(data))
    for begin, part in parts:
        total.add(begin, len(part), zlib.crc32(part))
    assert total.value() == zlib.crc32(data)


def test_files_carry_the_same_sums_whether_they_are_folded_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small conversions leave NumPy out. The embedding, 1 MB, is large enough to be folded."""
    params = make_small.LLAMA | {"vocab_size": 12000}
    case = make_small.Case(purpose="large", params=params, values="large", vocab_size=12000)
    source = tmp_path / "source"
    source.mkdir()
    (source / "params.json").write_text(make_small.params_text(case))
    for name, tensors in make_small.rank_files(case).items():
        torch.save(tensors, source / name)
    ropeconv.convert(source, tmp_path / "hf", ropeconv.HfOptions())
    folded: list[int] = []

    def counting(view: memoryview) -> int:
        folded.append(len(view))
        return crc32_spending(view)

    monkeypatch.setattr(sums, "crc32_spending", counting)
    ropeconv.convert(tmp_path / "hf", tmp_path / "plain", ropeconv.MetaOptions())
    assert not folded
    monkeypatch.setattr(sums, "FOLDING_NBYTES", 0)
    ropeconv.convert(tmp_path / "hf", tmp_path / "folded", ropeconv.MetaOptions())
    one, other = (tmp_path / folder / "consolidated.00.pth" for folder in ("plain", "folded"))

    assert max(folded) >= WORTHWHILE_NBYTES
    assert one.read_bytes() == other.read_bytes()
    assert zipfile.ZipFile(other).testzip() is None

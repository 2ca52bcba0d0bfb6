"""CRC-32 in parts: each kind of sum and the combination, against zlib and zipfile."""

from __future__ import annotations

import importlib.util
import random
import sys
import zipfile
import zlib
from itertools import pairwise
from pathlib import Path

import pytest
import torch

import ropeconv
from fixtures import make_small
from ropeconv.moving.crc import Crc32Sum, fastest_crc32


@pytest.mark.parametrize("nbytes", [0, 1, 3, 63, 4096, (1 << 20) + 12345])
def test_sum_when_isa_l_is_there_then_it_is_zlibs(nbytes: int) -> None:
    data = random.Random(nbytes).randbytes(nbytes + 13)
    for shift in (0, 1, 13):
        part = memoryview(data)[shift : shift + nbytes]
        assert fastest_crc32()(part) == zlib.crc32(part)


def test_sum_when_isa_l_is_missing_then_it_is_taken_with_zlib(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert importlib.util.find_spec("isal") is not None  # else the test above has shown nothing
    assert fastest_crc32() is not zlib.crc32

    monkeypatch.setitem(sys.modules, "isal.isal_zlib", None)

    assert fastest_crc32() is zlib.crc32


def test_parts_in_any_order_give_the_whole() -> None:
    data = random.Random(7).randbytes(5000)
    cuts = [0, 1, 700, 701, 2048, 4999, 5000]
    parts = [(begin, data[begin:end]) for begin, end in pairwise(cuts)]
    random.Random(8).shuffle(parts)
    total = Crc32Sum(len(data))
    for begin, part in parts:
        total.add(begin, len(part), zlib.crc32(part))
    assert total.value() == zlib.crc32(data)


def test_files_when_their_entries_are_summed_either_way_then_they_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The embedding, 1 MB, is moved in several blocks."""
    params = make_small.LLAMA | {"vocab_size": 12000}
    case = make_small.Case(purpose="large", params=params, values="large", vocab_size=12000)
    source = tmp_path / "source"
    source.mkdir()
    (source / "params.json").write_text(make_small.params_text(case))
    for name, tensors in make_small.rank_files(case).items():
        torch.save(tensors, source / name)
    ropeconv.convert(source, tmp_path / "hf", ropeconv.HfOptions())

    ropeconv.convert(tmp_path / "hf", tmp_path / "isa-l", ropeconv.MetaOptions())
    monkeypatch.setitem(sys.modules, "isal.isal_zlib", None)
    ropeconv.convert(tmp_path / "hf", tmp_path / "zlib", ropeconv.MetaOptions())
    one, other = (tmp_path / folder / "consolidated.00.pth" for folder in ("isa-l", "zlib"))

    assert one.read_bytes() == other.read_bytes()
    assert zipfile.ZipFile(one).testzip() is None

"""The exact check: no bit of a target may differ, and what differs is named to the row."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import ropeconv
from fixtures import make_small
from ropeconv import HfOptions, MetaOptions, Outcome
from ropeconv.formats import discover
from ropeconv.moving.effort import Effort
from ropeconv.proof.exact import check_exact
from ropeconv.proof.verdict import ExactCheck
from ropeconv.thinking.inventory import Inventory, take_stock
from ropeconv.words.events import nobody
from tests.conftest import SMALL

EFFORT = Effort(jobs=1)
NAMES = sorted(make_small.CASES)


def stock(folder: Path) -> Inventory:
    return take_stock(discover(folder))


def check(source: Path, target: Path, effort: Effort = EFFORT) -> ExactCheck:
    return check_exact(stock(source), stock(target), effort, nobody)


@pytest.mark.parametrize("name", NAMES)
def test_right_conversion_is_the_same_in_both_directions(
    converted: Callable[[str], Path], name: str
) -> None:
    """NaN, infinities and -0.0 too: bytes are compared, not numbers."""
    for source, target in ((SMALL / name, converted(name)), (converted(name), SMALL / name)):
        found = check(source, target)

        assert (found.outcome, found.findings) == (Outcome.SAME, ())
        assert (found.num_tensors, found.num_reordered) == (21, 4)
        assert found.nbytes >= sum(tensor.nbytes for tensor in stock(converted(name)).tensors)


@pytest.mark.parametrize("name", ["llama", "llama-odd-bits", "llama-tied"])
def test_flipped_bit_anywhere_is_found_and_named(
    tmp_path: Path, converted: Callable[[str], Path], name: str
) -> None:
    target = Path(shutil.copytree(converted(name), tmp_path / "hf"))
    before = stock(target)
    path = target / "model.safetensors"
    rng = random.Random(7)
    for tensor in before.tensors:
        place = tensor.pieces[0].offset + rng.randrange(tensor.nbytes)
        row = (place - tensor.pieces[0].offset) // tensor.row_nbytes
        data = bytearray(path.read_bytes())
        data[place] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        found = check(SMALL / name, target)
        data[place] ^= data[place] ^ (converted(name) / "model.safetensors").read_bytes()[place]
        path.write_bytes(data)

        assert found.outcome is Outcome.DIFFERENT, tensor.name
        finding = next(f for f in found.findings if f.tensor == tensor.name)
        tied = {"lm_head.weight"} if name == "llama-tied" and "embed" in tensor.name else set()
        assert {f.tensor for f in found.findings} <= {tensor.name} | tied
        assert f"row {row}" in finding.text, found.findings
    assert check(SMALL / name, target).outcome is Outcome.SAME, "the control: all is as it was"


def test_flipped_bit_in_the_copy_of_a_rank_is_found(
    tmp_path: Path, converted: Callable[[str], Path]
) -> None:
    """A reader of one rank sees its copy, whatever rank 0 holds."""
    target = Path(shutil.copytree(SMALL / "llama-replicated-kv", tmp_path / "meta"))
    inventory = stock(target)
    norm = next(tensor for tensor in inventory.tensors if tensor.name == "model.norm.weight")
    copy = norm.copies[-1]
    path = inventory.checkpoint.path(copy.file)
    data = bytearray(path.read_bytes())
    data[copy.offset + 5] ^= 1
    path.write_bytes(data)
    found = check(converted("llama-replicated-kv"), target)

    assert [finding.tensor for finding in found.findings] == ["model.norm.weight"]


@pytest.mark.parametrize(("jobs", "block_nbytes"), [(1, 4096), (2, 5000), (8, 1 << 20)])
def test_findings_are_the_same_for_any_effort(
    tmp_path: Path, converted: Callable[[str], Path], jobs: int, block_nbytes: int
) -> None:
    target = Path(shutil.copytree(converted("llama"), tmp_path / "hf"))
    path = target / "model.safetensors"
    data = bytearray(path.read_bytes())
    for place in (len(data) - 1, len(data) // 2, len(data) // 3):
        data[place] ^= 0x10
    path.write_bytes(data)
    effort = Effort(jobs=jobs, block_nbytes=block_nbytes)

    assert check(SMALL / "llama", target, effort) == check(SMALL / "llama", target)


def test_same_model_in_other_shards_and_ranks_is_the_same(
    tmp_path: Path, converted: Callable[[str], Path]
) -> None:
    ropeconv.convert(SMALL / "llama-1-rank", tmp_path / "hf", HfOptions(max_shard_nbytes=9000))
    ropeconv.convert(converted("llama-1-rank"), tmp_path / "meta", MetaOptions(num_ranks=2))
    for one in (tmp_path / "hf", tmp_path / "meta", SMALL / "llama-2-ranks"):
        assert check(SMALL / "llama-1-rank", one).outcome is Outcome.SAME
        assert check(one, converted("llama-1-rank")).outcome is Outcome.SAME


def test_another_model_of_the_same_shapes_differs_in_every_tensor() -> None:
    found = check(SMALL / "llama", SMALL / "llama-tied")

    assert {finding.tensor for finding in found.findings} == {
        tensor.name for tensor in stock(SMALL / "llama").tensors
    }

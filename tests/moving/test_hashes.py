"""SHA-256 sums in the manifest are those of the files, however blocks arrive."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ropeconv.moving.effort import Effort, Io
from ropeconv.story.conversion import Handling, HfOptions, MetaOptions, convert
from ropeconv.story.relayout import relayout
from ropeconv.words.layout import INTERLEAVED
from tests.moving.cases import LARGER, digests, make_hf

HASHED = Handling(hashes=True)


def stated(folder: Path) -> dict[str, str]:
    """What the manifest says."""
    manifest = json.loads((folder / "ropeconv.json").read_text())
    return {file["name"]: file["sha256"] for file in manifest["target"]["files"]}


def found(folder: Path) -> dict[str, str]:
    """What the files are."""
    return {name: sha for name, sha in digests(folder).items() if name != "ropeconv.json"}


@pytest.mark.parametrize("block_nbytes", [4096, 1 << 20])
@pytest.mark.parametrize("jobs", [1, 2, 8])
def test_sums_are_those_of_the_files(tmp_path: Path, jobs: int, block_nbytes: int) -> None:
    effort = Effort(jobs=jobs, block_nbytes=block_nbytes, io=Io.BUFFERED, sync=False)
    source = make_hf(tmp_path / "hf", LARGER)
    relayout(source, tmp_path / "there", INTERLEAVED, effort=effort, handling=HASHED)
    for ranks in (1, 2):
        options = MetaOptions(num_ranks=ranks)
        convert(source, tmp_path / f"meta-{ranks}", options, effort=effort, handling=HASHED)
    options = HfOptions(max_shard_nbytes=10**6)
    convert(tmp_path / "meta-2", tmp_path / "back", options, effort=effort, handling=HASHED)

    for name in ("there", "meta-1", "meta-2", "back"):
        assert stated(tmp_path / name) == found(tmp_path / name), name


def test_sums_of_files_that_share_blocks(reflink_folder: Path) -> None:
    source = make_hf(reflink_folder / "hashed", LARGER)
    done = relayout(source, reflink_folder / "hashed-there", INTERLEAVED, handling=HASHED)

    assert done.shares
    assert stated(reflink_folder / "hashed-there") == found(reflink_folder / "hashed-there")

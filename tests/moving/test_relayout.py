"""Rows move between layouts within one format: into a new folder, shared or not, and in place."""

from __future__ import annotations

import json
import random
import shutil
import threading
from pathlib import Path

import pytest

from ropeconv.formats import hf
from ropeconv.formats.safetensors import read_header
from ropeconv.moving import inplace
from ropeconv.moving.effort import Effort, Io
from ropeconv.moving.staging import Staging
from ropeconv.story.conversion import HfOptions, MetaOptions, convert
from ropeconv.story.relayout import relayout, relayout_in_place
from ropeconv.words.errors import (
    AlreadyConverted,
    AnotherRun,
    BrokenFile,
    Contradiction,
    HostileFile,
    IncompleteSource,
    Interrupted,
    Refused,
)
from ropeconv.words.events import BytesDone, Event
from ropeconv.words.layout import HALF_SPLIT, INTERLEAVED, Repeat, Rope, row_order
from tests.moving.cases import LARGER, ODD, digests, make_hf, run_child, take_room

BLOCK = 1024
SAMPLE = {"file": "x", "offset": 0, "nbytes": 1, "crc32": "00000000"}
SMALL = Effort(jobs=2, block_nbytes=BLOCK, io=Io.BUFFERED)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_hf(tmp_path / "half")


def rows_of(folder: Path, name: str) -> list[bytes]:
    """The rows of a stored tensor."""
    checkpoint = hf.discover(folder)
    tensor = next(tensor for tensor in checkpoint.tensors if tensor.name == name)
    data = checkpoint.path(tensor.file).read_bytes()[tensor.offset :][: tensor.nbytes]
    width = tensor.nbytes // tensor.shape[0]
    return [data[at : at + width] for at in range(0, tensor.nbytes, width)]


def test_rows_move_and_everything_else_stays(source: Path, tmp_path: Path) -> None:
    """Every tensor against the row order, which other tests hold against a published formula."""
    target = tmp_path / "interleaved"
    relayout(source, target, INTERLEAVED, effort=SMALL)
    heads = {"q_proj": ODD.heads, "k_proj": ODD.kv_heads}
    for tensor in hf.discover(source).tensors:
        before, after = rows_of(source, tensor.name), rows_of(target, tensor.name)
        kind = tensor.name.split(".")[-2]
        order = range(len(before))
        if kind in heads:
            rows = (Repeat(heads[kind], Rope(ODD.head_dim)),)
            order = row_order(rows, HALF_SPLIT, INTERLEAVED)  # type: ignore[assignment]

        assert after == [before[row] for row in order], tensor.name

    for name in ("config.json", "tokenizer.json", "model.safetensors.index.json"):
        assert (target / name).read_bytes() == (source / name).read_bytes()


def test_names_order_and_places_stay(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "interleaved"
    relayout(source, target, INTERLEAVED, effort=SMALL)
    for name in ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"):
        old, new = read_header(source, name, 0).tensors, read_header(target, name, 0).tensors

        assert [tensor.name for tensor in old] == [tensor.name for tensor in new]
        assert {(b.offset - a.offset) % 4096 for a, b in zip(old, new, strict=True)} == {0}


def test_foreign_header_without_room_grows_by_whole_pages(tmp_path: Path) -> None:
    """Files of other writers have at most 7 spaces: data keeps its place within a page."""
    source = take_room(make_hf(tmp_path / "half", num_shards=1))
    before = read_header(source, "model.safetensors", 0).tensors[0].offset
    relayout(source, tmp_path / "there", INTERLEAVED, effort=SMALL)
    relayout(tmp_path / "there", tmp_path / "back", HALF_SPLIT, effort=SMALL)

    there = read_header(tmp_path / "there", "model.safetensors", 0).tensors
    assert there[0].offset - before == 4096
    for name in (tensor.name for tensor in there):
        assert rows_of(source, name) == rows_of(tmp_path / "back", name)


def test_there_and_back_gives_the_same_data_and_a_stamp(source: Path, tmp_path: Path) -> None:
    there, back, again = (tmp_path / name for name in ("there", "back", "again"))
    relayout(source, there, INTERLEAVED, effort=SMALL)
    relayout(there, back, HALF_SPLIT, effort=Effort(jobs=1))
    relayout(back, again, INTERLEAVED, effort=SMALL)
    weights = [name for name in digests(there) if name.endswith(".safetensors")]

    assert hf.discover(there).stamp == INTERLEAVED
    assert hf.discover(back).stamp == HALF_SPLIT
    assert {digests(there)[name] for name in weights} == {digests(again)[name] for name in weights}


def test_same_layout_is_refused_by_stamp_and_by_convention(source: Path, tmp_path: Path) -> None:
    relayout(source, tmp_path / "there", INTERLEAVED, effort=SMALL)

    with pytest.raises(AlreadyConverted, match="interleaved rows already"):
        relayout(tmp_path / "there", tmp_path / "again", INTERLEAVED)
    with pytest.raises(AlreadyConverted, match="half-split rows already"):
        relayout(source, tmp_path / "again", HALF_SPLIT)
    with pytest.raises(AlreadyConverted, match="half-split rows already"):
        relayout_in_place(source, HALF_SPLIT)

    assert not Staging(source).folder.exists()


def test_conversion_of_format_refuses_a_layout_against_convention(
    source: Path, tmp_path: Path
) -> None:
    relayout(source, tmp_path / "there", INTERLEAVED, effort=SMALL)

    with pytest.raises(Contradiction, match="stamped interleaved"):
        convert(tmp_path / "there", tmp_path / "meta", MetaOptions())


def test_what_an_earlier_conversion_kept_survives(source: Path, tmp_path: Path) -> None:
    """Meta to HF, to the other layout and back, to Meta: params.json is the original."""
    convert(source, tmp_path / "meta", MetaOptions(num_ranks=2), effort=SMALL)
    convert(tmp_path / "meta", tmp_path / "hf", HfOptions(), effort=SMALL)
    relayout(tmp_path / "hf", tmp_path / "there", INTERLEAVED, effort=SMALL)
    relayout(tmp_path / "there", tmp_path / "back", HALF_SPLIT, effort=SMALL)
    convert(tmp_path / "back", tmp_path / "end", MetaOptions(num_ranks=2), effort=SMALL)
    start, end = digests(tmp_path / "meta"), digests(tmp_path / "end")

    assert start.pop("ropeconv.json") != end.pop("ropeconv.json")
    assert start == end


def test_in_place_gives_the_bytes_of_a_new_folder(source: Path, tmp_path: Path) -> None:
    relayout(source, tmp_path / "there", INTERLEAVED, effort=SMALL)
    relayout_in_place(source, INTERLEAVED, block_nbytes=BLOCK)

    assert digests(source) == digests(tmp_path / "there")
    assert not Staging(source).folder.exists()


def test_in_place_without_room_in_headers_the_manifest_holds_the_stamp(
    source: Path, tmp_path: Path
) -> None:
    """Checkpoints of transformers have at most 7 spaces in their headers."""
    take_room(source)
    relayout(source, tmp_path / "there", INTERLEAVED, effort=SMALL)
    original = tmp_path / "original"
    shutil.copytree(source, original)
    relayout_in_place(source, INTERLEAVED, block_nbytes=BLOCK)

    for tensor in hf.discover(source).tensors:
        assert rows_of(source, tensor.name) == rows_of(tmp_path / "there", tensor.name)
    assert hf.discover(source).stamp == INTERLEAVED
    with pytest.raises(AlreadyConverted, match="stamped interleaved"):
        relayout_in_place(source, INTERLEAVED)

    shutil.copytree(source, tmp_path / "elsewhere")
    relayout(tmp_path / "elsewhere", tmp_path / "back", HALF_SPLIT, effort=SMALL)
    relayout_in_place(source, HALF_SPLIT, block_nbytes=BLOCK)

    assert hf.discover(source).stamp == HALF_SPLIT
    for tensor in hf.discover(original).tensors:
        assert rows_of(source, tensor.name) == rows_of(original, tensor.name)
        assert rows_of(tmp_path / "back", tensor.name) == rows_of(original, tensor.name)


def test_manifest_that_outlived_its_weights_is_refused(source: Path, tmp_path: Path) -> None:
    """The same model downloaded again over rows that were rewritten in place."""
    take_room(source)
    shutil.copytree(source, tmp_path / "original")
    relayout_in_place(source, INTERLEAVED)
    for file in (tmp_path / "original").glob("*.safetensors"):
        shutil.copy(file, source / file.name)

    with pytest.raises(Contradiction, match="does not have") as refused:
        hf.discover(source)

    assert "remove `ropeconv.json`" in refused.value.fix


@pytest.mark.parametrize(
    "stamps",
    [
        [],
        {"values": {"ropeconv.layout": 1}, "samples": []},
        {
            "values": {},
            "samples": [{"file": "../x", "offset": 0, "nbytes": 1, "crc32": "00000000"}],
        },
        {"values": {}, "samples": [{"file": "x", "offset": 0, "nbytes": 1, "crc32": "xyz"}]},
        {"values": {}, "samples": [{"file": "x", "offset": -1, "nbytes": 1, "crc32": "00000000"}]},
        {
            "values": {},
            "samples": [{"file": "x", "offset": 0, "nbytes": 1 << 40, "crc32": "00000000"}],
        },
    ],
)
def test_stamps_of_a_hostile_manifest_are_refused(source: Path, stamps: object) -> None:
    relayout_in_place(take_room(source), INTERLEAVED)
    path = source / "ropeconv.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"stamps": stamps}))

    with pytest.raises((BrokenFile, HostileFile)):
        hf.discover(source)


@pytest.mark.parametrize("room", [True, False])
def test_in_place_killed_at_any_call_then_repeated_gives_the_same_bytes(
    tmp_path: Path, *, room: bool
) -> None:
    def make(name: str) -> Path:
        folder = make_hf(tmp_path / name, ODD)
        return folder if room else take_room(folder)

    whole = make("whole")
    job = {"work": "in-place", "layout": "interleaved", "block_nbytes": 64}
    num_calls = int(run_child(**job, source=str(whole), target="").stdout)
    expected = digests(whole)
    generator = random.Random(11)
    for _ in range(6):
        folder = make("folder")
        die_at, after = generator.randrange(num_calls), generator.random() < 0.5
        killed = run_child(**job, source=str(folder), target="", die_at=die_at, after=after)
        again = run_child(**job, source=str(folder), target="")

        assert killed.returncode == -9
        assert again.returncode == 0 or "already-converted" in again.stdout, again.stdout
        assert digests(folder) == expected, (die_at, after)
        shutil.rmtree(folder)


def test_in_place_that_was_stopped_is_taken_for_no_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inplace, "PORTION_BLOCKS", 2)
    stop = threading.Event()
    folder = make_hf(tmp_path / "larger", LARGER)

    def listen(event: Event) -> None:
        if isinstance(event, BytesDone):
            stop.set()

    with pytest.raises(Interrupted):
        relayout_in_place(folder, INTERLEAVED, block_nbytes=512, listen=listen, stop=stop)
    with pytest.raises(IncompleteSource, match="in the middle of a conversion in place"):
        hf.discover(folder)
    with pytest.raises(AnotherRun, match="another than this"):
        relayout_in_place(folder, HALF_SPLIT, block_nbytes=512)
    relayout_in_place(folder, INTERLEAVED, block_nbytes=512)

    assert hf.discover(folder).stamp == INTERLEAVED


@pytest.mark.parametrize("kind", ["symbolic", "hard"])
def test_in_place_refuses_files_that_others_share(source: Path, tmp_path: Path, kind: str) -> None:
    file = source / "model-00001-of-00002.safetensors"
    blob = tmp_path / "blob"
    if kind == "symbolic":
        file.rename(blob)
        file.symlink_to(blob)
    else:
        blob.hardlink_to(file)
    before = blob.read_bytes()

    with pytest.raises(Refused, match="link" if kind == "symbolic" else "2 names"):
        relayout_in_place(source, INTERLEAVED)
    assert blob.read_bytes() == before

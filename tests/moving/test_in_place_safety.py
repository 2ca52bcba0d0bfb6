"""In place, attacked: kills after kills, other weights under an old journal, no right to write."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from ropeconv.formats import hf
from ropeconv.moving import inplace
from ropeconv.moving.staging import Staging
from ropeconv.story.relayout import relayout, relayout_in_place
from ropeconv.words.errors import (
    AnotherRun,
    Contradiction,
    Interrupted,
    NotACheckpoint,
    TargetError,
)
from ropeconv.words.events import BytesDone, Event
from ropeconv.words.layout import HALF_SPLIT, INTERLEAVED
from tests.moving.cases import LARGER, ODD, Shape, digests, make_hf, take_room

BLOCK = 2048
# Dies at the given call of a function of `inplace`, by its number.
KILL = """
import os, signal, sys
from pathlib import Path
from ropeconv.moving import inplace
from ropeconv.story.relayout import relayout_in_place
from ropeconv.words.layout import INTERLEAVED
folder, name, left = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
inplace.PORTION_BLOCKS = 8
call = getattr(inplace, name)
def deadly(*arguments):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return call(*arguments)
setattr(inplace, name, deadly)
relayout_in_place(folder, INTERLEAVED, block_nbytes=2048)
"""


def run(folder: Path, name: str = "_rewrite", left: int = 10**6) -> int:
    command = [sys.executable, "-c", KILL, str(folder), name, str(left)]
    return subprocess.run(command, check=False, capture_output=True, timeout=60).returncode


def stop_in_the_middle(folder: Path, blocks: int) -> None:
    stop = threading.Event()
    left = iter(range(blocks))

    def listen(event: Event) -> None:
        if isinstance(event, BytesDone) and next(left, None) is None:
            stop.set()

    with pytest.raises(Interrupted) as stopped:
        relayout_in_place(folder, INTERLEAVED, block_nbytes=BLOCK, listen=listen, stop=stop)
    assert "restart" not in stopped.value.fix  # there is no such thing in place


def test_killed_while_going_on_then_goes_on_again(tmp_path: Path) -> None:
    """The second run undoes an open portion, then dies while it writes the undo file anew."""
    whole = make_hf(tmp_path / "whole", LARGER)
    relayout_in_place(whole, INTERLEAVED)
    folder = make_hf(tmp_path / "folder", LARGER)

    assert run(folder, "_rewrite", 3) == -9
    assert run(folder, "read_scattered", 9) == -9
    assert run(folder, "read_scattered", 30) == -9
    assert run(folder) == 0
    assert digests(folder) == digests(whole)


@pytest.mark.parametrize("room", [True, False])
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("blocks", [1, 12])
@pytest.mark.parametrize("way", ["new files", "over the old files"])
def test_other_weights_under_an_old_journal_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, blocks: int, seed: int, *, room: bool
) -> None:
    """Downloaded again, or another model, after a run that was interrupted."""
    monkeypatch.setattr(inplace, "PORTION_BLOCKS", 8)
    folder = make_hf(tmp_path / "folder", LARGER)
    fresh = make_hf(tmp_path / "fresh", LARGER, seed=seed)
    for place in (folder, fresh) if not room else ():
        take_room(place)
    stop_in_the_middle(folder, blocks)
    for file in fresh.glob("*.safetensors"):
        if way == "new files":
            (folder / file.name).unlink()
        shutil.copyfile(file, folder / file.name)
    if way == "new files" and not room:
        (folder / "ropeconv.json").unlink()
    before = {file.name: file.read_bytes() for file in folder.glob("*.safetensors")}
    if way == "over the old files" and not room and blocks == seed == 1:
        relayout_in_place(folder, INTERLEAVED, block_nbytes=BLOCK)  # nothing was lost, nothing done
        relayout_in_place(fresh, INTERLEAVED)
        assert digests(folder) == digests(fresh)
        return

    with pytest.raises(AnotherRun, match="not the checkpoint whose rewrite") as refused:
        relayout_in_place(folder, INTERLEAVED, block_nbytes=BLOCK)

    assert str(Staging(folder).folder) in refused.value.fix
    assert before == {file.name: file.read_bytes() for file in folder.glob("*.safetensors")}
    shutil.rmtree(Staging(folder).folder)
    if not room and way != "new files":
        (folder / "ropeconv.json").unlink()
    relayout_in_place(folder, INTERLEAVED)
    assert hf.discover(folder).stamp == INTERLEAVED


def test_header_that_a_kill_tore_is_made_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Headers of several pages are not written at once."""
    shape = replace(ODD, layers=24)
    folder = make_hf(tmp_path / "folder", shape, num_shards=1)
    whole = make_hf(tmp_path / "whole", shape, num_shards=1)
    relayout_in_place(whole, INTERLEAVED)

    class Power(BaseException):
        pass

    def tear(descriptor: int, view: memoryview, offset: int) -> None:
        os.pwrite(descriptor, view[:4096], offset)
        raise Power

    monkeypatch.setattr(inplace, "write_all", tear)
    with pytest.raises(Power):
        relayout_in_place(folder, INTERLEAVED)
    monkeypatch.undo()
    relayout_in_place(folder, INTERLEAVED)

    assert digests(folder) == digests(whole)


def test_header_with_room_for_the_old_stamp_only(tmp_path: Path) -> None:
    """Saved again by a tool that keeps metadata: `interleaved` is one letter longer."""
    relayout(make_hf(tmp_path / "half", ODD), tmp_path / "there", INTERLEAVED)
    relayout(tmp_path / "there", tmp_path / "back", HALF_SPLIT)
    folder = tmp_path / "back"
    for file in folder.glob("*.safetensors"):
        data = file.read_bytes()
        length = int.from_bytes(data[:8], "little")
        text = data[8 : 8 + length].rstrip()
        file.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    relayout_in_place(folder, INTERLEAVED)

    assert hf.discover(folder).stamp == INTERLEAVED
    assert b"ropeconv.layout" not in next(folder.glob("*.safetensors")).read_bytes()[:4096]


def test_shard_of_another_conversion_is_noticed(tmp_path: Path) -> None:
    """One shard downloaded again has no stamp, and one of many without room has other rows."""
    source = make_hf(tmp_path / "half", replace(ODD, layers=12), num_shards=12)
    relayout(source, tmp_path / "there", INTERLEAVED)
    name = "model-00007-of-00012.safetensors"
    shutil.copy(source / name, tmp_path / "there")
    with pytest.raises(Contradiction, match="stamped differently"):
        hf.discover(tmp_path / "there")

    original = tmp_path / "original"
    shutil.copytree(take_room(source), original)
    relayout_in_place(source, INTERLEAVED)
    rotary = {t.file for t in hf.discover(source).tensors if "q_proj" in t.name}
    for number in rotary:
        file = f"model-{number + 1:05d}-of-00012.safetensors"
        shutil.copy(source / file, tmp_path / "kept")
        shutil.copy(original / file, source)
        with pytest.raises(Contradiction, match="does not have"):
            hf.discover(source)
        shutil.copy(tmp_path / "kept", source / file)
    assert hf.discover(source).stamp == INTERLEAVED


def test_heads_of_two_rows_need_no_move(tmp_path: Path) -> None:
    """Both layouts are one then: only the stamp changes."""
    folder = take_room(make_hf(tmp_path / "half", Shape(head_dim=2)))
    relayout_in_place(folder, INTERLEAVED)

    assert hf.discover(folder).stamp == INTERLEAVED
    assert json.loads((folder / "ropeconv.json").read_text())["stamps"]["samples"] == []


@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_may_not_be_written_is_refused_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    folder = make_hf(tmp_path / "half", ODD)
    before = digests(folder)
    victim = folder if what == "folder" else folder / "model-00002-of-00002.safetensors"
    access = os.access  # root may write everything
    monkeypatch.setattr(os, "access", lambda path, mode: path != victim and access(path, mode))

    with pytest.raises(TargetError, match="may not be written"):
        relayout_in_place(folder, INTERLEAVED)

    assert digests(folder) == before
    assert not Staging(folder).folder.exists()


def test_path_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(NotACheckpoint, match="does not exist"):
        relayout_in_place(tmp_path / "some" / "where", INTERLEAVED)
    assert not (tmp_path / "some").exists()


@pytest.mark.parametrize("room", [True, False])
def test_dry_run_says_what_will_be_written(tmp_path: Path, *, room: bool) -> None:
    folder = make_hf(tmp_path / "half", LARGER)
    if not room:
        take_room(folder)
    before = digests(folder)
    planned = relayout_in_place(folder, INTERLEAVED, dry_run=True)
    assert digests(folder) == before
    done = relayout_in_place(folder, INTERLEAVED)

    assert planned.written_files == done.written_files
    manifest = dict(done.written_files)["ropeconv.json"]
    assert manifest == (folder / "ropeconv.json").stat().st_size

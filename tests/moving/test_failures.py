"""What stops a conversion gives a clear error, and no target that looks finished."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ropeconv.moving import examine, resources
from ropeconv.moving.effort import Effort, Io, default_jobs
from ropeconv.moving.staging import Staging
from ropeconv.story.conversion import ConversionReport, Handling, HfOptions, MetaOptions, convert
from ropeconv.story.relayout import relayout_in_place
from ropeconv.words.errors import (
    AnotherRun,
    Interrupted,
    NoMemory,
    NoRoom,
    SourceError,
    TargetBusy,
    TargetError,
    TargetExists,
)
from ropeconv.words.events import BytesDone, Event, WorkPlanned
from ropeconv.words.layout import INTERLEAVED
from tests.moving.cases import LARGER, digests, make_hf

SMALL = Effort(jobs=2, block_nbytes=4096, io=Io.BUFFERED)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_hf(tmp_path / "hf")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "meta"


def to_meta(source: Path, target: Path, **more: Any) -> ConversionReport:
    return convert(source, target, MetaOptions(), **{"effort": SMALL, **more})


def at_block(count: int, act: Callable[[], None]) -> Callable[[Event], None]:
    """A listener that acts once, when that many blocks are done."""
    left = iter(range(count))

    def listen(event: Event) -> None:
        if isinstance(event, BytesDone) and next(left, None) == count - 1:
            act()

    return listen


def test_stop_ends_the_run_and_the_same_command_goes_on(source: Path, target: Path) -> None:
    to_meta(source, target.with_name("whole"))
    stop = threading.Event()
    planned: list[WorkPlanned] = []

    def note(event: Event) -> None:
        planned.extend([event] if isinstance(event, WorkPlanned) else [])

    with pytest.raises(Interrupted, match="stopped") as stopped:
        to_meta(
            source,
            target,
            effort=Effort(jobs=1, block_nbytes=4096, io=Io.BUFFERED, sync=False),
            stop=stop,
            listen=at_block(10, stop.set),
        )
    assert stopped.value.exit_code == 130
    assert not target.exists()

    to_meta(source, target, effort=Effort(jobs=1, block_nbytes=512, sync=False), listen=note)

    assert 0 < planned[0].done_nbytes < planned[0].total_nbytes
    assert digests(target) == digests(target.with_name("whole"))


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize("compared", ["embeddings", "copies"])
def test_stop_ends_the_comparison_of_what_must_be_equal(
    compared: str, dry_run: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is planned: of tied embeddings, and of key heads that two ranks both have."""
    hf, meta = make_hf(tmp_path / "hf", LARGER), tmp_path / "meta"
    convert(hf, meta, MetaOptions(num_ranks=4 if compared == "copies" else 1), effort=SMALL)
    stop = threading.Event()
    reads = []

    def read(path: Path, view: memoryview | int, count: int) -> bytes:
        """Everything is zero, slowly; asked to stop in the first read."""
        reads.append(path)
        stop.set()
        time.sleep(0.01)
        nbytes = len(view) if isinstance(view, memoryview) else count
        if isinstance(view, memoryview):
            view[:] = bytes(nbytes)
        return bytes(nbytes)

    monkeypatch.setattr(examine, "CHUNK_NBYTES", 512)
    monkeypatch.setattr(examine, "read_into", read)
    if compared == "copies":
        monkeypatch.setattr(examine, "_is_tied", lambda *_: False)
        monkeypatch.setattr(examine, "_kept", lambda _: ())
        monkeypatch.setattr(examine, "read_span", read)
    with pytest.raises(Interrupted) as stopped:
        convert(meta, tmp_path / "back", HfOptions(), dry_run=dry_run, stop=stop)

    assert stopped.value.exit_code == 130
    assert 0 < len(reads) <= 2 * default_jobs()
    assert not Staging(tmp_path / "back").folder.exists()


def test_another_plan_is_refused_until_restart(source: Path, target: Path) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted):
        to_meta(source, target, stop=stop)

    with pytest.raises(AnotherRun, match="another plan") as refused:
        convert(source, target, MetaOptions(num_ranks=2), effort=SMALL)
    assert "`Handling(restart=True)`" in refused.value.fix

    restart = Handling(restart=True)
    convert(source, target, MetaOptions(num_ranks=2), effort=SMALL, handling=restart)

    assert (target / "consolidated.01.pth").exists()


def test_overwrite_of_what_is_half_rewritten_in_place_is_refused_until_restart(
    source: Path, tmp_path: Path
) -> None:
    """The undo file and its journal are all that can finish the old target."""
    old = make_hf(tmp_path / "old", seed=2)
    shutil.copytree(old, tmp_path / "whole")
    relayout_in_place(tmp_path / "whole", INTERLEAVED, block_nbytes=512)
    stop = threading.Event()
    with pytest.raises(Interrupted):
        relayout_in_place(
            old, INTERLEAVED, block_nbytes=512, listen=at_block(3, stop.set), stop=stop
        )
    held = digests(Staging(old).folder)

    with pytest.raises(AnotherRun, match="in the middle of a conversion in place") as refused:
        to_meta(source, old, handling=Handling(overwrite=True))
    assert "`Handling(restart=True)`" in refused.value.fix
    assert digests(Staging(old).folder) == held

    again = shutil.copytree(old, tmp_path / "again")
    shutil.copytree(Staging(old).folder, Staging(again).folder)
    relayout_in_place(again, INTERLEAVED, block_nbytes=512)

    assert digests(again) == digests(tmp_path / "whole")

    to_meta(source, old, handling=Handling(overwrite=True, restart=True))

    assert (old / "consolidated.00.pth").exists()
    assert not Staging(old).folder.exists()


@pytest.mark.parametrize("broken", ["write_text", "replace"])
def test_manifest_that_cannot_be_put_in_place_is_an_error_of_the_target(
    broken: str, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, broken, fail)
    with (
        Staging(source) as staging,
        pytest.raises(TargetError, match=r"cannot finish `.*ropeconv\.json`") as refused,
    ):
        staging.put_in_place("ropeconv.json", "{}")
    error = refused.value

    assert error.exit_code == 6
    assert "space left" in error.why
    assert "run the same command again" in error.fix


def test_source_that_changed_between_two_runs_is_another_plan(source: Path, target: Path) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted):
        to_meta(source, target, stop=stop)
    os.utime(source / "model-00001-of-00002.safetensors", ns=(1, 1))

    with pytest.raises(AnotherRun, match="another plan"):
        to_meta(source, target)


def test_second_run_on_one_target_is_refused(source: Path, target: Path) -> None:
    with Staging(target), pytest.raises(TargetBusy, match="another run is writing") as refused:
        to_meta(source, target)

    assert "wait" in refused.value.fix
    to_meta(source, target)  # the lock ended with its holder


def test_target_that_exists_is_refused_then_overwritten_whole(source: Path, target: Path) -> None:
    to_meta(source, target)
    expected = digests(target)
    (target / "old-rank.pth").write_bytes(b"old")

    with pytest.raises(TargetExists, match="exists already"):
        to_meta(source, target)
    to_meta(source, target, handling=Handling(overwrite=True))

    assert digests(target) == expected
    assert not Staging(target).folder.exists()


def test_overwrite_leaves_the_old_target_alone_until_the_seal(source: Path, target: Path) -> None:
    to_meta(source, target)
    (target / "old-rank.pth").write_bytes(b"old")
    before = digests(target)
    stop = threading.Event()
    seen: list[dict[str, str]] = []

    def act() -> None:
        seen.append(digests(target))
        stop.set()

    with pytest.raises(Interrupted):
        to_meta(
            source,
            target,
            handling=Handling(overwrite=True),
            listen=at_block(20, act),
            stop=stop,
        )

    assert seen == [before]
    assert digests(target) == before


def test_crash_between_the_two_renames_of_a_replacement_brings_the_old_target_back(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to_meta(source, target)
    expected = digests(target)

    class Crash(BaseException):
        pass

    def crash(staging: Staging) -> None:
        staging.target.rename(staging._replaced)
        raise Crash

    monkeypatch.setattr(Staging, "_appear", crash)
    with pytest.raises(Crash):
        to_meta(source, target, handling=Handling(overwrite=True))
    monkeypatch.undo()
    assert not target.exists()

    with Staging(target):
        assert digests(target) == expected


@pytest.mark.parametrize("make", ["notes", "folder", "link"])
def test_overwrite_refuses_what_is_no_checkpoint(source: Path, target: Path, make: str) -> None:
    if make == "link":
        target.symlink_to(make_hf(target.with_name("precious"), seed=2))
    else:
        target.mkdir()
        (target / "thesis.txt").write_text("years of work")
    if make == "folder":
        (target / "config.json").write_text("{}")
        (target / "original").mkdir()

    with pytest.raises(TargetExists, match="will not be replaced"):
        to_meta(source, target, handling=Handling(overwrite=True))
    assert any(target.iterdir())


def test_source_that_vanishes_or_is_cut_is_named(source: Path, target: Path) -> None:
    victim = source / "model-00002-of-00002.safetensors"

    with pytest.raises(SourceError, match="ended early") as cut:
        to_meta(source, target, listen=at_block(1, lambda: os.truncate(victim, 5000)))

    assert victim.name in str(cut.value)
    assert not target.exists()


def test_source_file_that_is_gone_is_named(source: Path, target: Path) -> None:
    victim = source / "tokenizer.json"

    with pytest.raises(SourceError, match=r"tokenizer\.json") as gone:
        to_meta(source, target, listen=at_block(1, victim.unlink))

    assert "no such file" in gone.value.why
    assert not target.exists()


def test_source_that_changes_during_the_run_is_noticed(source: Path, target: Path) -> None:
    """Same size, other bytes: only the time tells."""
    victim = source / "model-00001-of-00002.safetensors"

    def change() -> None:
        with victim.open("r+b") as file:
            file.seek(victim.stat().st_size - 100)
            file.write(b"changed")
        os.utime(victim, ns=(5, 5))

    with pytest.raises(SourceError, match="changed during the run"):
        to_meta(source, target, listen=at_block(1, change))

    assert not target.exists()


@pytest.mark.parametrize("call", ["pwrite", "fsync", "posix_fallocate"])
def test_full_disk_is_said_and_the_run_goes_on_when_there_is_room(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    to_meta(source, target.with_name("whole"))
    real = getattr(os, call)
    turns = iter(range(1000))

    def full(*arguments: Any) -> Any:
        if next(turns) == (30 if call == "pwrite" else 1):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*arguments)

    monkeypatch.setattr(os, call, full)
    with pytest.raises(TargetError) as failed:
        to_meta(source, target)
    monkeypatch.undo()

    assert failed.value.why == "no space left on device"
    assert failed.value.exit_code == 6
    assert not target.exists()
    to_meta(source, target)
    assert digests(target) == digests(target.with_name("whole"))


def test_short_reads_and_writes_are_completed(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to_meta(source, target.with_name("whole"))
    preadv, pwrite = os.preadv, os.pwrite
    # The first view alone, and not even all of it: both kinds of a short read.
    monkeypatch.setattr(os, "preadv", lambda fd, views, at: preadv(fd, [views[0][:97]], at))
    monkeypatch.setattr(os, "pwrite", lambda fd, view, at: pwrite(fd, view[:1013], at))
    to_meta(source, target)
    monkeypatch.undo()

    assert digests(target) == digests(target.with_name("whole"))


def test_system_without_positional_calls_gives_the_same_bytes(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to_meta(source, target.with_name("whole"))
    for name in ("preadv", "pwrite", "posix_fallocate", "O_DIRECT"):
        monkeypatch.delattr(os, name)
    to_meta(source, target, effort=Effort(jobs=2, block_nbytes=4096, io=Io.DIRECT))
    monkeypatch.undo()

    assert digests(target) == digests(target.with_name("whole"))


def test_unwritable_folder_is_said(source: Path, tmp_path: Path) -> None:
    """Not even root may make a folder inside a file."""
    (tmp_path / "file").touch()
    with pytest.raises(TargetError, match="cannot make") as refused:
        to_meta(source, tmp_path / "file" / "meta")

    assert refused.value.exit_code == 6


def test_plan_that_needs_more_than_there_is_is_refused_before_the_first_byte(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "free_memory", lambda: 10**6)
    with pytest.raises(NoMemory, match="needs"):
        to_meta(source, target)
    monkeypatch.undo()
    monkeypatch.setattr(resources.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(NoRoom, match="1000 free"):
        to_meta(source, target)

    assert list(target.parent.glob(".*")) == []


def test_dry_run_says_what_a_run_needs_and_writes_nothing(source: Path, target: Path) -> None:
    report = to_meta(source, target, dry_run=True)
    needs = report.needs
    to_meta(source, target)

    assert needs.written_nbytes == sum(path.stat().st_size for path in target.iterdir())
    assert needs.read_nbytes == report.plan.read_nbytes > 0
    assert needs.memory_nbytes > 2 * 4096
    assert needs.disk_free_nbytes > needs.disk_nbytes == needs.written_nbytes


def test_target_inside_the_source_is_refused(source: Path) -> None:
    for inner in (source / "meta", source, source.parent):
        with pytest.raises(TargetExists, match="lie in each other"):
            to_meta(source, inner)

"""The bytes that come out depend on the source and the options, and on nothing else."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from ropeconv.moving import resources, sharing
from ropeconv.moving.effort import Effort, Io
from ropeconv.moving.execute import all_blocks
from ropeconv.moving.resources import memory_nbytes, settle
from ropeconv.moving.sharing import can_share
from ropeconv.story.conversion import HfOptions, MetaOptions, convert, plan_conversion
from ropeconv.story.relayout import plan_new_layout, relayout
from ropeconv.words.errors import Interrupted
from ropeconv.words.events import BytesDone, Event
from ropeconv.words.layout import INTERLEAVED
from tests.moving.cases import LARGER, ODD, digests, make_hf, run_child
from tests.moving.sparse import LLAMA_405B, make_sparse_hf

EFFORTS = [
    Effort(jobs=1, io=Io.BUFFERED),
    Effort(jobs=8, block_nbytes=700, io=Io.BUFFERED, sync=False),
    Effort(jobs=2, block_nbytes=30_000, io=Io.DIRECT),
    Effort(jobs=4, io=Io.DIRECT, sync=False),
]
MEASURE = """
import json, sys
from pathlib import Path
from ropeconv.cli import app  # as the command has it
from ropeconv.moving.effort import Effort, Io
from ropeconv.story.conversion import Handling, MetaOptions, convert
source, target, io, jobs, ranks = sys.argv[1:]
report = convert(
    Path(source),
    Path(target),
    MetaOptions(num_ranks=int(ranks)),
    effort=Effort(jobs=int(jobs), io=Io(io)),
    handling=Handling(hashes=True),
)
# VmHWM: ru_maxrss would count the parent's pages between fork and exec
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([report.needs.memory_nbytes, int(peak.split()[1]) * 1024]))
"""


def measured(source: Path, target: Path, *, io: str, jobs: int, ranks: int) -> tuple[int, int]:
    """Planned and measured memory of a conversion in a process of its own."""
    words = [str(source), str(target), io, str(jobs), str(ranks)]
    command = [sys.executable, "-c", MEASURE, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    planned, peak = json.loads(done.stdout)
    return planned, peak


@pytest.mark.parametrize("shape", [ODD, LARGER])
@pytest.mark.parametrize("effort", EFFORTS, ids=lambda e: f"{e.io.value}-{e.jobs}")
def test_effort_does_not_change_a_byte(shape: object, effort: Effort, tmp_path: Path) -> None:
    source = make_hf(tmp_path / "hf", shape)  # type: ignore[arg-type]
    plain = Effort(jobs=2, io=Io.BUFFERED)
    for name, how in (("a", plain), ("b", effort)):
        convert(source, tmp_path / f"meta-{name}", MetaOptions(num_ranks=2), effort=how)
        convert(tmp_path / "meta-a", tmp_path / f"hf-{name}", HfOptions(), effort=how)

    assert digests(tmp_path / "meta-a") == digests(tmp_path / "meta-b")
    assert digests(tmp_path / "hf-a") == digests(tmp_path / "hf-b")


def test_hash_seed_and_place_do_not_change_a_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for seed in ("1", "2"):
        monkeypatch.setenv("PYTHONHASHSEED", seed)
        source = make_hf(tmp_path / f"place-{seed}" / "hf")
        os.utime(source / "tokenizer.json", ns=(int(seed), int(seed)))
        target = source.parent / "meta"
        job = run_child(work="hf-to-meta", source=str(source), target=str(target), hashes=True)

        assert job.returncode == 0, job.stderr
        found.append(digests(target))

    assert found[0] == found[1]


def test_blocks_when_a_format_orders_tensors_otherwise_then_they_are_read_as_they_lie(
    tmp_path: Path,
) -> None:
    """The source's order is the disk's; in the target's, a cold one took 1.1 times as long."""
    plan = plan_conversion(make_hf(tmp_path / "hf"), MetaOptions())
    order = [(move.sources[0].file, move.sources[0].offset) for move in plan.moves]
    reads = [
        (read.file, read.offset)
        for block in all_blocks(plan, 4096)
        if block.writes[0].file == 0  # side files take turns with the weights
        for read in block.reads
    ]

    assert order != sorted(order)  # what this test is about
    assert reads == sorted(reads)


def test_plan_without_shared_moves_fills_the_rest(tmp_path: Path) -> None:
    """Blocks of the reduced plan and the clones cover every byte that headers do not."""
    plan = plan_new_layout(make_hf(tmp_path / "half"), INTERLEAVED)
    reduced = plan.without_shared()
    for number, file in enumerate(plan.files):
        covered = bytearray(file.nbytes)
        for clone in plan.clones:
            if clone.target_file == number:
                end = clone.target_offset + clone.nbytes
                assert end == file.nbytes
                assert (clone.source_offset - clone.target_offset) % 4096 == 0
                covered[clone.target_offset : end] = b"c" * clone.nbytes
        for block in all_blocks(reduced, 4096):
            for write in block.writes:
                if write.file == number:
                    covered[write.offset : write.offset + write.nbytes] = b"w" * write.nbytes
        for part in file.fixed:
            covered[part.offset : part.offset + len(part.data)] = b"f" * len(part.data)

        assert b"\0" not in covered, file.name
    assert 0 < reduced.moved_nbytes < plan.moved_nbytes


def test_shared_blocks_give_the_same_bytes(tmp_path: Path, reflink_folder: Path) -> None:
    source = make_hf(reflink_folder / "half", LARGER)
    effort = Effort(jobs=2, block_nbytes=4096, io=Io.BUFFERED)
    shared = relayout(source, reflink_folder / "shared", INTERLEAVED, effort=effort)
    moved = relayout(source, tmp_path / "moved", INTERLEAVED, effort=effort)

    assert (shared.shares, moved.shares) == (True, False)
    assert shared.needs.written_nbytes < moved.needs.written_nbytes
    assert digests(reflink_folder / "shared") == digests(tmp_path / "moved")


def test_file_system_without_sharing_is_noticed_and_left_clean(tmp_path: Path) -> None:
    plan = plan_new_layout(make_hf(tmp_path / "half"), INTERLEAVED)
    shared_memory = Path("/dev/shm")
    if not shared_memory.is_dir():
        pytest.skip("no /dev/shm: a folder on another file system")

    before = set(shared_memory.glob(".ropeconv-probe-*"))
    assert not can_share(plan, shared_memory)
    assert set(shared_memory.glob(".ropeconv-probe-*")) == before


@pytest.mark.parametrize("guessed", [True, False])
@pytest.mark.parametrize("kind", ["file", "link", "folder"])
def test_look_for_sharing_leaves_what_lies_there_alone(
    kind: str, guessed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the plain name, and under the very name of the probe if that could be guessed."""
    source = make_hf(tmp_path / "half")
    precious = tmp_path / "precious"
    precious.write_text("years of work")
    folder = tmp_path / "there"
    folder.mkdir()
    if guessed:
        monkeypatch.setattr(sharing.secrets, "token_hex", lambda _: "1")
    probe = folder / (".ropeconv-probe-1" if guessed else "probe")
    if kind == "file":
        probe.write_text("years of work")
    elif kind == "link":
        probe.symlink_to(precious)
    else:
        probe.mkdir()
    relayout(source, folder / "new", INTERLEAVED, dry_run=True)

    assert list(folder.iterdir()) == [probe]
    assert precious.read_text() == "years of work"
    assert probe.is_symlink() == (kind == "link")
    assert probe.is_dir() or probe.read_text() == "years of work"


@pytest.mark.parametrize(
    ("io", "jobs", "ranks"),
    [("buffered", 1, 1), ("buffered", 2, 2), ("buffered", 8, 2), ("direct", 2, 2)],
)
def test_measured_memory_stays_below_the_plan(
    tmp_path: Path, io: str, jobs: int, ranks: int
) -> None:
    """Half a gigabyte of weights, ten times what is allowed."""
    shape = replace(LARGER, layers=1, hidden=4096, heads=32, head_dim=128, vocab=30_000)
    source = make_sparse_hf(tmp_path / "hf", shape, num_shards=4)
    planned, peak = measured(source, tmp_path / "meta", io=io, jobs=jobs, ranks=ranks)

    assert sum(path.stat().st_size for path in source.iterdir()) > 5e8
    assert peak < planned <= 96 << 20


def test_measured_memory_of_short_rows_stays_below_the_plan(tmp_path: Path) -> None:
    """A megabyte of the rows of 128 bytes that two ranks share has 16,384 places."""
    shape = replace(LARGER, hidden=64, heads=2, kv_heads=2, head_dim=32, vocab=600_000)
    shape = replace(shape, intermediate=600_000)
    source = make_sparse_hf(tmp_path / "hf", shape, num_shards=2)
    planned, peak = measured(source, tmp_path / "meta", io="buffered", jobs=8, ranks=2)

    assert peak < planned


def test_needs_count_the_blocks_of_the_run_that_is_gone_on_with(tmp_path: Path) -> None:
    """A direct run has blocks of 4 MiB; eight buffered jobs go on with them."""
    shape = replace(LARGER, layers=1, hidden=4096, heads=32, head_dim=128, vocab=30_000)
    source = make_sparse_hf(tmp_path / "hf", shape, num_shards=4)
    stop = threading.Event()
    stop.set()
    options = MetaOptions(num_ranks=2)
    direct = Effort(jobs=4, io=Io.DIRECT)
    with pytest.raises(Interrupted):
        convert(source, tmp_path / "meta", options, effort=direct, stop=stop)
    more = Effort(jobs=8, io=Io.BUFFERED)
    foreseen = convert(source, tmp_path / "meta", options, effort=more, dry_run=True)
    afresh = convert(source, tmp_path / "fresh", options, effort=more, dry_run=True)
    planned, peak = measured(source, tmp_path / "meta", io="buffered", jobs=8, ranks=2)

    assert planned == foreseen.needs.memory_nbytes > afresh.needs.memory_nbytes + (20 << 20)
    assert peak < planned


def test_largest_model_is_planned_within_the_promise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to the first moved block of 811 GB in 1137 shards."""
    source = make_sparse_hf(tmp_path / "hf", LLAMA_405B, num_shards=1137)
    plan = plan_conversion(source, MetaOptions(num_ranks=8))

    assert plan.read_nbytes > 810e9
    assert memory_nbytes(plan, settle(plan, Effort(jobs=2, io=Io.BUFFERED))) <= 96 << 20
    assert memory_nbytes(plan, settle(plan, Effort(jobs=2, io=Io.DIRECT))) <= 112 << 20

    stop = threading.Event()
    monkeypatch.delattr(os, "posix_fallocate")  # the target's holes take no room either
    monkeypatch.setattr(
        resources.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1 << 50})
    )

    def listen(event: Event) -> None:
        if isinstance(event, BytesDone):
            stop.set()

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(Interrupted):
        convert(
            source,
            tmp_path / "meta",
            MetaOptions(num_ranks=8),
            listen=listen,
            stop=stop,
            effort=Effort(jobs=2, io=Io.BUFFERED, sync=False),
        )
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before

    assert grown < 60 << 10


@pytest.mark.parametrize(
    ("free", "cached", "io"),
    [(10**12, 0.0, Io.BUFFERED), (10**5, 0.0, Io.DIRECT), (10**5, 1.0, Io.BUFFERED)],
)
def test_io_is_direct_only_where_the_cache_is_cold_and_too_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, cached: float, io: Io
) -> None:
    plan = plan_conversion(make_hf(tmp_path / "hf"), MetaOptions())
    monkeypatch.setattr(resources, "free_memory", lambda: free)
    monkeypatch.setattr(resources, "cached_fraction", lambda _: cached)

    assert settle(plan, Effort(jobs=2)).io is io
    assert settle(plan, Effort(jobs=2, io=Io.BUFFERED)).io is Io.BUFFERED


def test_cached_fraction_sees_a_file_that_was_just_written(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 100_000)
    hole = tmp_path / "hole"
    with hole.open("wb") as handle:
        handle.truncate(10_000_000)

    assert resources.cached_fraction([file]) == 1.0
    if resources.sys.platform == "linux" and resources.cached_fraction([hole]) < 1.0:
        assert resources.cached_fraction([hole]) == 0.0
        assert 0.0 < resources.cached_fraction([file, hole]) < 0.1

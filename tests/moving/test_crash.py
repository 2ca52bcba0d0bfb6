"""Killed at any instant, a conversion looks unfinished, and goes on to equal bytes."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from ropeconv.moving.journal import JOURNAL
from ropeconv.moving.staging import Staging
from tests.moving.cases import LARGER, digests, make_hf, run_child

NUM_INSTANTS = 5  # of each direction; `python -m tests.moving.many_crashes` tries hundreds


@pytest.fixture(scope="module")
def hf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_hf(tmp_path_factory.mktemp("crash") / "hf", LARGER)


@pytest.fixture(scope="module")
def meta(hf: Path) -> Path:
    target = hf.parent / "meta"
    assert run_child(work="hf-to-meta", source=str(hf), target=str(target)).returncode == 0
    return target


@pytest.mark.parametrize("work", ["hf-to-meta", "meta-to-hf"])
def test_killed_at_any_call_then_resumed_gives_the_same_bytes(
    work: str, hf: Path, meta: Path, tmp_path: Path
) -> None:
    source = str(hf if work == "hf-to-meta" else meta)
    whole = run_child(work=work, source=source, target=str(tmp_path / "whole"), hashes=True)
    expected, num_calls = digests(tmp_path / "whole"), int(whole.stdout)
    before = digests(Path(source))
    generator = random.Random(7)
    target = tmp_path / "target"
    for _ in range(NUM_INSTANTS):
        die_at, after = generator.randrange(num_calls), generator.random() < 0.5
        job = {"work": work, "source": source, "target": str(target), "hashes": True}
        killed = run_child(**job, die_at=die_at, after=after)
        finished = target.exists()

        assert killed.returncode == -9
        assert not finished or digests(target) == expected, (die_at, after)

        if not finished:
            resumed = run_child(**job, jobs=generator.choice([1, 2, 8]))

            assert resumed.returncode == 0, resumed.stdout + resumed.stderr
            assert digests(target) == expected, (die_at, after)
        shutil.rmtree(target)
        shutil.rmtree(Staging(target).folder, ignore_errors=True)

    assert before == digests(Path(source))


def test_resumed_run_writes_only_what_is_missing(hf: Path, tmp_path: Path) -> None:
    job = {"work": "hf-to-meta", "source": str(hf), "target": str(tmp_path / "target")}
    num_calls = int(run_child(**job, sync=False).stdout)
    shutil.rmtree(tmp_path / "target")
    killed = run_child(**job, sync=False, die_at=num_calls * 8 // 10)
    resumed = run_child(**job, sync=False)

    assert killed.returncode == -9
    assert resumed.returncode == 0
    assert int(resumed.stdout) < num_calls // 2


def test_torn_line_and_rotten_block_are_redone(hf: Path, tmp_path: Path) -> None:
    """A journal may end within a line, and a staged block may not be what its line says."""
    target = tmp_path / "target"
    job = {"work": "hf-to-meta", "source": str(hf), "target": str(target), "ranks": 1}
    num_calls = int(run_child(**job, sync=False).stdout)
    expected = digests(target)
    shutil.rmtree(target)
    run_child(**job, sync=False, die_at=num_calls * 8 // 10)
    staging = Staging(target)
    lines = (staging.folder / JOURNAL).read_bytes()
    (staging.folder / JOURNAL).write_bytes(lines[:-3])
    staged = staging.path("consolidated.00.pth")
    with staged.open("r+b") as file:
        file.seek(300_000)  # within the embedding, which was finished long before
        file.write(b"\xff" * 9000)
    resumed = run_child(**job, sync=False)

    assert lines.count(b"\n") > 10
    assert resumed.returncode == 0
    assert digests(target) == expected


def test_staged_file_that_shrank_makes_the_run_begin_afresh(hf: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    job = {"work": "hf-to-meta", "source": str(hf), "target": str(target), "ranks": 1}
    num_calls = int(run_child(**job, sync=False).stdout)
    expected = digests(target)
    shutil.rmtree(target)
    run_child(**job, sync=False, die_at=num_calls // 2)
    with Staging(target).path("consolidated.00.pth").open("r+b") as file:
        file.truncate(5000)
    resumed = run_child(**job, sync=False)

    assert resumed.returncode == 0
    assert digests(target) == expected

"""Kills conversions at many instants and resumes them: `python -m tests.moving.many_crashes`.

Half the kills come at a chosen call to the system, half from outside after a random time. Every
resumed target must have the bytes of one that was never interrupted, whatever the jobs.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ropeconv.moving.staging import Staging
from tests.moving.cases import CHILD, LARGER, digests, make_hf, run_child

WORKS = ("hf-to-meta", "meta-to-hf", "relayout", "in-place")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    generator = random.Random(options.seed)
    tally: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        hf = make_hf(root / "hf", LARGER)
        prepared = {work: _prepare(work, root, hf) for work in WORKS}
        for number in range(options.count):
            work = WORKS[number % len(WORKS)]
            kind = _crash_once(work, root, hf, prepared[work], generator)
            tally[f"{work}: {kind}"] += 1
    for kind, count in sorted(tally.items()):
        sys.stdout.write(f"{count:5}  {kind}\n")
    sys.stdout.write(f"{options.count} kills, every target right\n")


def _job(work: str, root: Path, hf: Path, target: Path) -> dict[str, Any]:
    source = {"meta-to-hf": root / "meta-to-hf-source", "in-place": target}.get(work, hf)
    job = {"work": work, "source": str(source), "target": str(target), "layout": "interleaved"}
    return job | {"hashes": True}


def _prepare(work: str, root: Path, hf: Path) -> tuple[dict[str, str], int, float]:
    """The right target, the number of calls, and the seconds that a whole run takes."""
    target = root / f"{work}-whole"
    if work == "meta-to-hf":
        made = root / "meta-to-hf-source"
        run_child(work="hf-to-meta", source=str(hf), target=str(made))
    if work == "in-place":
        shutil.copytree(hf, target)
    begin = time.monotonic()
    done = run_child(**_job(work, root, hf, target))
    assert done.returncode == 0, done.stdout + done.stderr
    return digests(target), int(done.stdout), time.monotonic() - begin


def _crash_once(
    work: str,
    root: Path,
    hf: Path,
    prepared: tuple[dict[str, str], int, float],
    generator: random.Random,
) -> str:
    expected, num_calls, seconds = prepared
    target = root / "target"
    if work == "in-place":
        shutil.copytree(hf, target)
    job = _job(work, root, hf, target)
    if generator.random() < 0.5:
        how = {"die_at": generator.randrange(num_calls), "after": generator.random() < 0.5}
        code = run_child(**job, **how).returncode
    else:
        how = {"seconds": generator.uniform(0, seconds)}
        with subprocess.Popen(
            [sys.executable, CHILD, json.dumps(job)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as run:
            time.sleep(how["seconds"])
            run.kill()
        code = run.returncode
    kind = "killed" if code == -9 else "ended before the kill"
    whole = target.exists() and digests(target) == expected
    if work != "in-place":
        assert whole or not target.exists(), (work, how)
    if not whole:
        resumed = run_child(**job, jobs=generator.choice([1, 2, 8]))
        assert resumed.returncode == 0, (work, how, resumed.stdout, resumed.stderr)
    assert digests(target) == expected, (work, how)
    shutil.rmtree(target)
    shutil.rmtree(Staging(target).folder, ignore_errors=True)
    return kind if not whole else f"{kind}, complete"


if __name__ == "__main__":
    main()

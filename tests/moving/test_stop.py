"""Signals end the command within its block, and the same command goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ropeconv.moving.staging import Staging
from tests.moving.cases import LARGER
from tests.moving.sparse import make_sparse_hf


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_the_command_and_leaves_its_work(
    number: signal.Signals, tmp_path: Path
) -> None:
    shape = replace(LARGER, layers=2, hidden=4096, heads=32, head_dim=128, vocab=60_000)
    source = make_sparse_hf(tmp_path / "hf", shape, num_shards=4)
    target = tmp_path / "meta"
    command = [sys.executable, "-m", "ropeconv", "convert", "hf-to-meta", source, target]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [*command, "--jobs", "1"], stderr=subprocess.PIPE, text=True, env=environment
    ) as run:
        journal = Staging(target).folder / "journal"
        while run.poll() is None and not journal.exists():
            pass
        run.send_signal(number)
        _, said = run.communicate(timeout=30)

    assert run.returncode == 130, said
    assert "run the same command again" in said
    assert "Traceback" not in said
    assert journal.exists()
    assert not target.exists()
    subprocess.run([*command, "-q"], check=True, timeout=60)
    assert target.exists()

"""Detect: let a child process look at the weights, and read what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import IO

from ropeconv.knowledge.family import Family
from ropeconv.moving.engine import interrupted
from ropeconv.words.errors import Contradiction
from ropeconv.words.model import Geometry

FEWEST_KEY_HEADS = 8  # of all layers; fewer have never been firm evidence
POLL_SECONDS = 0.2  # between two looks at whether to stop
CHILD_SECONDS = 600.0  # no model takes as long; a child that hangs must not hang the parent


@dataclass(frozen=True, kw_only=True)
class Detected:
    """What the weights say of their row layout. Evidence, never proof.

    Attributes:
        layout: interleaved or half-split; empty if inconclusive, or if the rows are in neither.
        reordered: how often interleaved rows were reordered to half-split; None if inconclusive.
        z: of the best hypothesis.
        margin: of the best over the next, compared head by head.
        why: in words.
    """

    layout: str
    reordered: int | None
    z: float
    margin: float
    num_heads: int
    why: str

    @property
    def conclusive(self) -> bool:
        """Whether the evidence is firm, for a layout or for a mistake."""
        return self.reordered is not None


class Looking:
    """A child that looks at a checkpoint's weights while the parent goes on."""

    def __init__(self, root: Path, described: Family | None = None) -> None:
        # -P keeps the current folder off the import path: a checkpoint may hold a file `torch.py`
        command = [sys.executable, "-P", "-m", "ropeconv.proof.look", str(root)]
        command += ["described"] if described else []
        with _told(described) as told:
            self._child = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                command,
                # The products are small: more threads win nothing, and cost the conversion cores.
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUTF8": "1"},
                stdin=told,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )

    def result(self, stop: Event | None = None) -> Detected:
        """What the child found; inconclusive, with the reason, if it could not look.

        Raises:
            Interrupted: stop was set. A Ctrl-C ends the child as well: then it has found nothing.
        """
        try:
            return Detected(**json.loads(self._words(stop)))
        except (subprocess.TimeoutExpired, ValueError, TypeError):
            why = "the weights could not be looked at; is numpy installed and working?"
            return Detected(layout="", reordered=None, z=0.0, margin=0.0, num_heads=0, why=why)
        finally:
            self.stop()

    def _words(self, stop: Event | None) -> str:
        last = time.monotonic() + CHILD_SECONDS
        out = None
        while out is None:
            try:
                out, _ = self._child.communicate(timeout=POLL_SECONDS)
            except subprocess.TimeoutExpired:
                if time.monotonic() > last:
                    raise
            if stop is not None and stop.is_set():
                raise interrupted()
        return out

    def stop(self) -> None:
        """End the child, if it still runs."""
        if self._child.poll() is None:
            self._child.kill()
        if self._child.stdout is not None:
            self._child.stdout.close()
        self._child.wait()


@contextmanager
def _told(described: Family | None) -> Iterator[IO[bytes] | int]:
    """What the child reads: the description, in a file, since a pipe could fill before it does."""
    if described is None:
        yield subprocess.DEVNULL
        return
    # imports of 5 ms, which only descriptions need
    from tempfile import TemporaryFile  # noqa: PLC0415

    from ropeconv.knowledge.described import write_description  # noqa: PLC0415

    with TemporaryFile() as told:
        told.write(write_description(described).encode())
        told.seek(0)
        yield told


@contextmanager
def looking_at(
    root: Path, geometry: Geometry, *, wanted: bool, described: Family | None = None
) -> Iterator[Looking | None]:
    """A child that looks while the block runs; none if it is not wanted, or could say nothing."""
    heads = geometry.num_layers * geometry.num_kv_heads
    if not wanted or heads < FEWEST_KEY_HEADS:
        yield None
        return
    looking = Looking(root, described)
    try:
        yield looking
    finally:
        looking.stop()


def detect(root: Path, described: Family | None = None) -> Detected:
    """What a checkpoint's weights say about their layout; its table may be the user's."""
    return Looking(root, described).result()


def contradicts(declared: str, detected: Detected) -> bool:
    """Whether weights firmly say that they are not in the declared layout."""
    return detected.conclusive and detected.layout != declared


def check_declared(root: Path, declared: str, detected: Detected) -> None:
    """Refuse a checkpoint whose weights firmly say that they are not in the declared layout.

    Raises:
        Contradiction: they do.
    """
    if not contradicts(declared, detected):
        return
    raise Contradiction(
        what=f"the weights of `{root}` do not look {declared}",
        why=detected.why,
        fix="find out who converted it before; `look=False` goes on as declared",
    )

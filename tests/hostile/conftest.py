"""A clock over every hostile test: a hang is an answer too, and the wrong one."""

from __future__ import annotations

import faulthandler
import time
from collections.abc import Iterator

import pytest

SECONDS = 10.0  # each takes milliseconds; loops of hundreds of files take one or two seconds


@pytest.fixture(autouse=True)
def _quickly() -> Iterator[None]:
    # A hang inside C code can be stopped by nothing but the end of the process.
    faulthandler.dump_traceback_later(60, exit=True)
    start = time.monotonic()
    yield
    faulthandler.cancel_dump_traceback_later()
    seconds = time.monotonic() - start

    assert seconds < SECONDS, f"took {seconds:.1f} s"

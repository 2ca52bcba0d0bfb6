"""Ctrl-C ends every command within a second; a conversion, so that the same command goes on."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
AGAIN_SECONDS = 0.5  # until a Ctrl-C that had no effect is repeated


@contextmanager
def insisting() -> Iterator[None]:
    """Ctrl-C ends the block, even if the first one is lost.

    A library may swallow an exception that is raised in its midst: torch does for some milliseconds
    of its import. Where timers have signals, KeyboardInterrupt is raised until it gets through.
    """
    numbers = [signal.SIGINT, *([signal.SIGALRM] if hasattr(signal, "SIGALRM") else [])]
    before = [signal.getsignal(number) for number in numbers]

    def interrupt(number: int, frame: FrameType | None) -> None:
        del number, frame
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)
        raise KeyboardInterrupt

    for number in numbers:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@contextmanager
def stopping() -> Iterator[Event]:
    """An event that the first signal sets. The second does what it always does."""
    stop = Event()
    before = {int(number): signal.getsignal(number) for number in SIGNALS}

    def ask(number: int, frame: FrameType | None) -> None:
        del frame
        stop.set()
        signal.signal(number, before[number])

    for number in SIGNALS:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number in SIGNALS:
            signal.signal(number, before[number])

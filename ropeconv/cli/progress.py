"""Progress of long work: one bar on a terminal, a line now and then elsewhere.

A bar counts bytes where bytes take the time, and layers where computing does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ropeconv.cli.speech import Speech
from ropeconv.reports.text import size
from ropeconv.words.events import (
    BytesDone,
    CheckBegun,
    CheckDone,
    Event,
    LayerDone,
    LayersPlanned,
    WorkDone,
    WorkPlanned,
)

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

PLAIN_LINE_SECONDS = 10.0  # between lines of progress where there is no terminal


@contextmanager
def progress_of(speech: Speech) -> Iterator[Progress]:
    """A listener that shows how far the work is; silent under --quiet."""
    progress = Progress(speech, on_terminal=speech.err.isatty() and not speech.quiet)
    try:
        yield progress
    finally:
        progress.stop()


class Progress:
    """Hears of the core's progress."""

    def __init__(self, speech: Speech, *, on_terminal: bool) -> None:
        self._speech = speech
        self._on_terminal = on_terminal
        self._bar: RichProgress | None = None
        self._title = ""
        self._total = self._done = 0
        self._said: Callable[[int], str] = size
        self._last_line = time.monotonic()

    def __call__(self, event: Event) -> None:
        """Show it."""
        match event:
            case WorkPlanned():
                self._said = size
                self._begin(event.title, event.total_nbytes, event.done_nbytes)
            case LayersPlanned():
                self._said = str
                self._begin(event.title, event.num_layers)
            case BytesDone():
                self._advance(event.nbytes)
            case LayerDone():
                self._advance(1)
            case WorkDone():
                self.stop()
            case CheckBegun() | CheckDone():
                pass

    def stop(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _begin(self, title: str, total: int, done: int = 0) -> None:
        self.stop()
        self._title, self._total, self._done = title, total, done
        if self._on_terminal:
            self._bar = _bar(self._speech, in_bytes=self._said is size)
            self._bar.add_task(f"{title} (resumed)" if done else title, total=total, completed=done)
            self._bar.start()

    def _advance(self, amount: int) -> None:
        self._done += amount
        if self._bar is not None:
            self._bar.advance(self._bar.task_ids[0], amount)
        elif time.monotonic() - self._last_line > PLAIN_LINE_SECONDS:
            self._last_line = time.monotonic()
            unit = "" if self._said is size else " layers"
            done, total = self._said(self._done), self._said(self._total)
            self._speech.progress(f"{self._title}: {done} of {total}{unit}")


def _bar(speech: Speech, *, in_bytes: bool) -> RichProgress:
    from rich import progress  # only those who see a bar wait for Rich, 45 ms
    from rich.console import Console

    amount = (
        (progress.DownloadColumn(), progress.TransferSpeedColumn())
        if in_bytes
        else (progress.MofNCompleteColumn(), progress.TextColumn("layers"))
    )
    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        *amount,
        progress.TimeRemainingColumn(),
        console=Console(stderr=True, no_color=True if speech.no_color else None),
        transient=True,
    )

"""Progress of long work: one bar in bytes on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ropeconv.cli.speech import Speech
from ropeconv.reports.text import size
from ropeconv.words.events import BytesDone, Event, WorkDone, WorkPlanned

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

PLAIN_LINE_SECONDS = 10.0  # between lines of progress where there is no terminal


@contextmanager
def progress_of(speech: Speech) -> Iterator[_Listener]:
    """A listener that shows how far the work is; silent under --quiet."""
    if speech.quiet or not speech.err.isatty():
        yield _Listener(speech, None)
        return
    with _bar(speech) as bar:
        yield _Listener(speech, bar)


def _bar(speech: Speech) -> Progress:
    from rich import progress  # only those who see a bar wait for Rich, 45 ms
    from rich.console import Console

    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
        console=Console(stderr=True, no_color=True if speech.no_color else None),
        transient=True,
    )


class _Listener:
    """Hears of the core's progress."""

    def __init__(self, speech: Speech, bar: Progress | None) -> None:
        self._speech = speech
        self._bar = bar
        self._task: TaskID | None = None
        self._title = ""
        self._total = self._done = 0
        self._last_line = time.monotonic()

    def __call__(self, event: Event) -> None:
        match event:
            case WorkPlanned():
                self._title, self._total = event.title, event.total_nbytes
                self._done = event.done_nbytes
                title = f"{event.title} (resumed)" if event.done_nbytes else event.title
                if self._bar is not None:
                    self._task = self._bar.add_task(
                        title, total=event.total_nbytes, completed=event.done_nbytes
                    )
            case BytesDone():
                self._done += event.nbytes
                if self._bar is not None and self._task is not None:
                    self._bar.advance(self._task, event.nbytes)
                elif time.monotonic() - self._last_line > PLAIN_LINE_SECONDS:
                    self._last_line = time.monotonic()
                    self._speech.progress(
                        f"{self._title}: {size(self._done)} of {size(self._total)}"
                    )
            case WorkDone():
                if self._bar is not None and self._task is not None:
                    self._bar.remove_task(self._task)
                    self._task = None

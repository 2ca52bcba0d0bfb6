"""How the command speaks: results to stdout, all else to stderr, errors as what, why, fix."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from ropeconv.reports.forms import Forms
from ropeconv.reports.json_report import error_json
from ropeconv.words.errors import ExitCode, Interrupted, RopeconvError, TargetError, UsageError
from ropeconv.words.events import BytesDone, Event, WorkDone, WorkPlanned
from ropeconv.words.model import Note

CHECKPOINT_FILES = ("config.json", "params.json", "ropeconv.json")
PLAIN_LINE_SECONDS = 10.0  # between lines of progress where there is no terminal


@dataclass(kw_only=True)
class Speech:
    """Where one command's words go."""

    json: bool = False
    quiet: bool = False
    debug: bool = False
    report: Path | None = None
    forms: Forms = field(default_factory=dict)  # of the command's result
    no_color: bool = False
    out: Console = field(init=False)
    err: Console = field(init=False)

    def __post_init__(self) -> None:
        color = True if self.no_color else None  # None: as NO_COLOR and the terminal say
        self.out = _Console(no_color=color)
        self.err = Console(stderr=True, no_color=color)

    def result(self, text: str) -> None:
        """A line of the result, for people; silent under --json."""
        if not self.json:
            self.out.print(text, soft_wrap=True, highlight=False)

    def machine(self, result: object) -> None:
        """The result for machines: one JSON line, and the report file in the form of its ending."""
        if self.json:
            _write_line(self.forms[".json"](result))
        if self.report is not None:
            text = self.forms[self.report.suffix](result)
            try:
                self.report.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
            except OSError as error:
                raise _unwritable(self.report, error) from error

    def notes(self, notes: tuple[Note, ...]) -> None:
        """What was inferred, dropped or repaired."""
        if not self.quiet:
            for note in notes:
                self.err.print(
                    f"[dim]{escape(note.kind)}:[/dim] {escape(note.text)}",
                    soft_wrap=True,
                    highlight=False,
                )

    def hint(self, text: str) -> None:
        """The next command, after a blank line."""
        if not self.quiet and not self.json:
            self.err.print(f"\n[dim]{text}[/dim]", soft_wrap=True, highlight=False)

    def error(self, error: RopeconvError) -> None:
        """What, why, fix."""
        if self.json:
            _write_line(error_json(error))
            return
        self.err.print(f"[bold red]error:[/] {escape(error.what)}", soft_wrap=True, highlight=False)
        for word, text in (("why", error.why), ("fix", error.fix)):
            if text:
                self.err.print(
                    f"[bold]{word}:[/]   {escape(text)}", soft_wrap=True, highlight=False
                )


class _Console(Console):
    """A console whose reader may leave, as `| head` does: the work and its exit code go on."""

    def on_broken_pipe(self) -> None:
        """Say the rest to nobody; Rich itself would exit with 1, which means `different` here."""
        _nobody_reads()


def _write_line(text: str) -> None:
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        _nobody_reads()


def _nobody_reads() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def speaking(speech: Speech) -> Iterator[None]:
    """Turn every failure into words and an exit code. A traceback is shown with --debug only."""
    try:
        _check_report(speech)
        yield
        sys.stdout.flush()
    except RopeconvError as error:
        if speech.debug:
            raise
        speech.error(error)
        raise typer.Exit(int(error.exit_code)) from None
    except KeyboardInterrupt:
        speech.error(Interrupted(what="stopped by the keyboard", fix="run the same command again"))
        raise typer.Exit(int(ExitCode.INTERRUPTED)) from None
    except BrokenPipeError:  # from a Rich without on_broken_pipe
        _nobody_reads()
        raise typer.Exit(int(ExitCode.BUG)) from None
    except (typer.Exit, typer.Abort):
        raise
    except Exception as error:
        if speech.debug:
            raise
        bug = RopeconvError(
            what=f"a bug in ropeconv: {type(error).__name__}: {error}",
            why="this should have been a clear message",
            fix="please report it, with what --debug prints",
        )
        speech.error(bug)
        raise typer.Exit(int(ExitCode.BUG)) from None


def _check_report(speech: Speech) -> None:
    """Before hours of work: the form is known, and the place can be written.

    An older report goes away, so that none can be taken for the result of a run that failed.
    """
    report = speech.report
    if report is None:
        return
    if report.suffix not in speech.forms:
        *most, last = speech.forms
        raise UsageError(
            what=f"`--report {report}` ends in `{report.suffix}`",
            why="the ending chooses the form of the report",
            fix=f"name a file that ends in {', '.join(most)} or {last}",
        )
    if any((report.parent / name).exists() for name in CHECKPOINT_FILES):
        raise UsageError(
            what=f"`--report {report}` lies in the folder of a checkpoint",
            why="a report must neither replace a checkpoint's file nor travel with it",
            fix="name a file in another folder",
        )
    try:
        report.touch()
        report.unlink()
    except OSError as error:
        raise _unwritable(report, error) from error


def _unwritable(report: Path, error: OSError) -> TargetError:
    return TargetError(
        what=f"cannot write the report `{report}`",
        why=(error.strerror or str(error)).lower(),
        fix="name a file in a folder that exists and can be written",
    )


@contextmanager
def progress_of(speech: Speech) -> Iterator[_Listener]:
    """A listener that shows one bar on a terminal, and a line now and then elsewhere."""
    if speech.quiet or not speech.err.is_terminal:
        yield _Listener(speech, None)
        return
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=speech.err,
        transient=True,
    ) as bar:
        yield _Listener(speech, bar)


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
                    if not self._speech.quiet:
                        self._speech.err.print(
                            f"{self._title}: {gigabytes(self._done)} of {gigabytes(self._total)}"
                        )
            case WorkDone():
                if self._bar is not None and self._task is not None:
                    self._bar.remove_task(self._task)
                    self._task = None


def gigabytes(nbytes: int) -> str:
    """Bytes for people, in decimal units.

    >>> gigabytes(5368904), gigabytes(16_060_556_376)
    ('5.4 MB', '16.1 GB')
    """
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if nbytes >= size:
            return f"{nbytes / size:.1f} {unit}"
    return f"{nbytes} bytes"

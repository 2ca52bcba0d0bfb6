"""How the command speaks: results to stdout, all else to stderr, errors as what, why, fix."""

from __future__ import annotations

import sys
import textwrap
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING, TextIO

from ropeconv.cli.stopping import insisting
from ropeconv.cli.styles import Styled, bad, rendered, soft, strong, wants_color
from ropeconv.cli.wording import for_users
from ropeconv.reports.forms import ERROR, Forms
from ropeconv.reports.text import printable
from ropeconv.words.errors import Interrupted, RopeconvError, TargetError, UsageError

if TYPE_CHECKING:
    from ropeconv.words.model import Note

CHECKPOINT_FILES = ("config.json", "params.json", "ropeconv.json")


@dataclass(kw_only=True)
class Speech:
    """Where one command's words go."""

    json: bool = False
    quiet: bool = False
    debug: bool = False
    report: Path | None = None
    forms: Forms = field(default_factory=dict)  # of the command's result
    no_color: bool = False

    @property
    def err(self) -> TextIO:
        """Where everything goes that is no result."""
        return sys.stderr

    def result(self, *parts: str | Styled) -> None:
        """A line of the result, for people; silent under --json."""
        if not self.json:
            self._say(sys.stdout, *parts)

    def fields(self, rows: Iterable[tuple[str, str]]) -> None:
        """Names with their values, in two columns; on a terminal long values hang indented."""
        shown = [(name, printable(text)) for name, text in rows]
        indent = 2 + max(len(name) for name, _ in shown)
        width = get_terminal_size().columns - indent if sys.stdout.isatty() else 0
        for name, text in shown:
            first, *more = textwrap.wrap(text, max(width, 20)) if width else (text,)
            self.result(strong(f"{name:<{indent}}"), first)
            for line in more:
                self.result(" " * indent, line)

    def columns(self, titles: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
        """A table with its titles; only the last column is as long as it likes."""
        shown = [titles, *(tuple(printable(cell) for cell in row) for row in rows)]
        widths = [max(len(row[at]) for row in shown) for at in range(len(titles) - 1)]
        for number, row in enumerate(shown):
            *cells, last = row
            padded = "".join(f"{cell:<{w}}  " for cell, w in zip(cells, widths, strict=True))
            line = (padded + last).rstrip()
            self.result(strong(line) if number == 0 else line)

    def machine(self, result: object) -> None:
        """The result for machines: one JSON line, and the report file in the form of its ending."""
        if self.json:
            print(self.forms[".json"](result), flush=True)
        if self.report is not None:
            text = self.forms[self.report.suffix](result)
            try:
                self.report.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
            except OSError as error:
                raise _unwritable(self.report, error) from error

    def notes(self, notes: Iterable[Note]) -> None:
        """What was inferred, dropped or repaired."""
        if not self.quiet:
            for note in notes:
                self._say(self.err, soft(f"{note.kind}:"), f" {note.text}")

    def progress(self, text: str) -> None:
        """How far the work is, where there is no terminal."""
        if not self.quiet:
            self._say(self.err, text)

    def hint(self, *lines: str) -> None:
        """The next command, after a blank line."""
        if not self.quiet and not self.json:
            self._say(self.err)
            for line in lines:
                self._say(self.err, soft(line))

    def error(self, error: RopeconvError) -> None:
        """What, why, fix."""
        if self.json:
            print(ERROR[".json"](error), flush=True)
            return
        self._say(self.err, bad("error:"), f" {error.what}")
        for word, text in (("why", error.why), ("fix", error.fix)):
            if text:
                self._say(self.err, strong(f"{word}:"), f"   {text}")

    def _say(self, stream: TextIO, *parts: str | Styled) -> None:
        color = wants_color(stream, no_color=self.no_color)
        print(rendered(parts, color=color), file=stream)


@contextmanager
def speaking(speech: Speech) -> Iterator[None]:
    """Turn every failure into words and an exit code."""
    try:
        with insisting():
            _check_report(speech)
            yield
    except RopeconvError as error:
        raise SystemExit(failed(speech, error)) from None
    except Exception as error:  # noqa: BLE001 - whatever it is, it gets words and an exit code
        bug = RopeconvError(
            what=f"a bug in ropeconv: {type(error).__name__}: {error}",
            why="this should have been a clear message",
            fix="please report it, with what --debug prints",
        )
        raise SystemExit(failed(speech, bug)) from None


def failed(speech: Speech, error: RopeconvError) -> int:
    """Say an error, under --debug after the traceback in hand. Returns its exit code."""
    if speech.debug:
        traceback.print_exc()
    speech.error(for_users(error))
    return int(error.exit_code)


def stopped(speech: Speech) -> int:
    """Say that the keyboard stopped the command. Returns its exit code."""
    return failed(
        speech, Interrupted(what="stopped by the keyboard", fix="run the same command again")
    )


def _check_report(speech: Speech) -> None:
    """Before hours of work: the form is known, and the place can be written.

    An older report goes away, so that none can be taken for the result of a run that failed.
    """
    report = speech.report
    if report is None:
        return
    if report.suffix not in speech.forms:
        *most, last = speech.forms
        endings = f"{', '.join(most)} or {last}" if most else last
        raise UsageError(
            what=f"`--report {report}` ends in `{report.suffix}`",
            why="the ending chooses the form of the report",
            fix=f"name a file that ends in {endings}",
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

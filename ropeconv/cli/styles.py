"""Colours, for those who want them. A styled text says the same without its colour."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TextIO

from ropeconv.reports.text import printable


@dataclass(frozen=True, kw_only=True)
class Styled:
    """Text in a style of the terminal: `code` as in `ESC [ code m`."""

    text: str
    code: str


def good(text: str) -> Styled:
    """Done, or proved."""
    return Styled(text=text, code="32")


def bad(text: str) -> Styled:
    """Failed, or different."""
    return Styled(text=text, code="1;31")


def unsure(text: str) -> Styled:
    """Neither proved nor disproved."""
    return Styled(text=text, code="33")


def strong(text: str) -> Styled:
    """Names the line."""
    return Styled(text=text, code="1")


def soft(text: str) -> Styled:
    """May be skipped."""
    return Styled(text=text, code="2")


def wants_color(stream: TextIO, *, no_color: bool) -> bool:
    """Whether escapes may go to this stream: https://no-color.org and https://force-color.org."""
    if no_color or os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def rendered(parts: tuple[str | Styled, ...], *, color: bool) -> str:
    r"""One line of parts. What a stranger named cannot move the cursor, or begin a colour.

    >>> rendered((good("same"), ": `a\x1b[31m`"), color=True)
    '\x1b[32msame\x1b[0m: `a\\x1b[31m`'
    """
    shown = []
    for part in parts:
        if isinstance(part, str):
            shown.append(printable(part))
        else:
            text = printable(part.text)
            shown.append(f"\x1b[{part.code}m{text}\x1b[0m" if color else text)
    return "".join(shown)

"""The few HTML pieces that the page and its figures share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

from ropeconv.reports.text import parts, printable


def text(content: object) -> str:
    """Anyone's text, harmless between tags and in quoted attributes."""
    return escape(printable(content), quote=True)


def prose(content: object) -> str:
    """A sentence whose names stand in backticks, as messages have them.

    >>> prose("the tensor `<b>`")
    'the tensor <code>&lt;b&gt;</code>'
    """
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", text(content))


def code(content: object) -> str:
    """Anyone's name or path."""
    return f"<code>{text(content)}</code>"


def figure_number(value: float) -> str:
    """A number with a power of ten as people write it.

    >>> figure_number(3.18e-05)
    '3.2&nbsp;&times;&nbsp;10<sup>&minus;5</sup>'
    """
    mantissa, power = parts(value)
    if power is None:
        return "exactly 0" if value == 0 else mantissa
    sign = "&minus;" if power < 0 else ""
    return f"{mantissa}&nbsp;&times;&nbsp;10<sup>{sign}{abs(power)}</sup>"


def details(title: str, body: str) -> str:
    """Something that opens when it is wanted; the body is already markup."""
    return f"<details><summary>{text(title)}</summary>{body}</details>"


def table(
    title: str,
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    words: tuple[int, ...] = (),
    stack: bool = False,
) -> str:
    """A table that scrolls sideways where it must.

    Args:
        title: for screen readers.
        head: of the columns, plain text.
        rows: cells that are already markup.
        words: columns of text; numbers stand to the right.
        stack: on a phone, cells stand below each other with their column's name.
    """

    def line(tag: str, cells: Sequence[str]) -> str:
        scope = ' scope="col"' if tag == "th" else ""
        names = [f' data-name="{text(name)}"' if stack and tag == "td" else "" for name in head]
        return "".join(
            f"<{tag}{scope}{'' if at in words else ' class=n' + names[at]}>{cell}</{tag}>"
            for at, cell in enumerate(cells)
        )

    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{text(title)}">'
        f"<table{' class=stack' if stack else ''}>"
        f"<thead><tr>{line('th', [text(name) for name in head])}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )

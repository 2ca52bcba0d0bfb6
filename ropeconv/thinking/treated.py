"""What a family's table says of one stored tensor."""

from __future__ import annotations

from dataclasses import dataclass

from ropeconv.formats.checkpoint import StoredTensor
from ropeconv.knowledge.family import Rule
from ropeconv.words.layout import Rows
from ropeconv.words.parts import Part


@dataclass(frozen=True, kw_only=True)
class Treated:
    """A stored tensor, and what its rows are.

    Attributes:
        rule: why says what happens to it.
        rows: all `Keep` where nothing moves.
    """

    stored: StoredTensor
    rule: Rule
    layer: int | None
    rows: tuple[Rows, ...]
    part: Part = Part.TEXT

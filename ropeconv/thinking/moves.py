"""Moves: from the pieces of a source tensor to those of a target tensor, rows reordered."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from ropeconv.thinking.whole import Piece, WholeTensor
from ropeconv.words.layout import Keep, RopeLayout, Rows, row_period


@dataclass(frozen=True, kw_only=True)
class Move:
    """All bytes of one tensor.

    Attributes:
        order: row i of the target is row order[i] of the source; None where rows stay. Where
            there are more rows than places in it, it is of the first rows, and repeats.
        sources: tile the source tensor.
        targets: cover the target tensor; a row may lie in several (norms in every rank).
    """

    name: str
    num_rows: int
    row_nbytes: int
    order: tuple[int, ...] | None
    sources: tuple[Piece, ...]
    targets: tuple[Piece, ...]

    @property
    def nbytes(self) -> int:
        """Of the tensor."""
        return self.num_rows * self.row_nbytes


def make_move(
    tensor: WholeTensor, source: RopeLayout, target: RopeLayout, targets: tuple[Piece, ...]
) -> Move:
    """The move of one tensor between two layouts."""
    order = None
    if source != target:
        order = _order(tensor.rows, source, target)
    return Move(
        name=tensor.name,
        num_rows=tensor.num_rows,
        row_nbytes=tensor.row_nbytes,
        order=order,
        sources=tensor.pieces,
        targets=targets,
    )


@lru_cache(maxsize=256)
def _order(
    rows: tuple[Rows, ...], source: RopeLayout, target: RopeLayout
) -> tuple[int, ...] | None:
    """The gather order, of one head where heads repeat: a matrix's columns are 10^8 such rows."""
    if all(isinstance(part, Keep) for part in rows):
        return None  # an embedding's order would take 10 MB for 128,000 rows
    found = row_period(rows, source, target)
    return None if found == tuple(range(len(found))) else found


def copy_move(name: str, nbytes: int, source_file: int, target_file: int) -> Move:
    """The verbatim copy of a side file, as rows of one byte."""
    piece = Piece(
        file=source_file, offset=0, first_row=0, last_row=nbytes, first_byte=0, last_byte=1
    )
    return Move(
        name=name,
        num_rows=nbytes,
        row_nbytes=1,
        order=None,
        sources=(piece,),
        targets=(
            Piece(
                file=target_file, offset=0, first_row=0, last_row=nbytes, first_byte=0, last_byte=1
            ),
        ),
    )

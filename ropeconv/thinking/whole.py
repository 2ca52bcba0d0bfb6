"""A tensor of the model as one matrix of rows, and the pieces of files that it lies in."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ropeconv.knowledge.family import Rule
from ropeconv.words.dtypes import DType
from ropeconv.words.layout import Rows, num_rows
from ropeconv.words.parts import Part


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A contiguous part of a tensor in a file: some of its rows, some of each row's bytes."""

    file: int
    offset: int  # of the first byte, in the file
    first_row: int
    last_row: int  # exclusive
    first_byte: int  # of each row
    last_byte: int  # exclusive

    @property
    def row_nbytes(self) -> int:
        """Bytes of a row that lie in this piece."""
        return self.last_byte - self.first_byte

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return (self.last_row - self.first_row) * self.row_nbytes


@dataclass(frozen=True, kw_only=True)
class WholeTensor:
    """One tensor of the model, by its canonical name.

    Attributes:
        pieces: tile the tensor exactly.
        copies: stored again elsewhere: norms in every rank, key heads that several ranks share.
    """

    name: str
    rule: Rule
    layer: int | None
    dtype: DType
    shape: tuple[int, ...]
    rows: tuple[Rows, ...]
    pieces: tuple[Piece, ...]
    copies: tuple[Piece, ...] = ()
    part: Part = Part.TEXT

    @property
    def num_rows(self) -> int:
        """Rows of the matrix; a vector has rows of one element, a norm of each head all heads'."""
        return num_rows(*self.rows)

    @property
    def row_nbytes(self) -> int:
        """Bytes of a row."""
        return self.nbytes // self.num_rows if self.num_rows else 0

    @property
    def nbytes(self) -> int:
        """Size in bytes, stored once."""
        return math.prod(self.shape) * self.dtype.nbytes

"""A file to be written: what is known of it already, and where each tensor will lie."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ropeconv.words.dtypes import DType


@dataclass(frozen=True, kw_only=True)
class NewTensor:
    """A tensor to be written."""

    name: str
    dtype: DType
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * self.dtype.nbytes


@dataclass(frozen=True, kw_only=True)
class Fixed:
    """Bytes that the plan knows: headers, directories, constants."""

    offset: int
    data: bytes


@dataclass(frozen=True, kw_only=True)
class Checksum:
    """A CRC-32 over data that is moved, to be patched in when the data is there."""

    begin: int  # of the data, in the file
    nbytes: int
    places: tuple[int, ...]  # offsets of the four little-endian bytes


@dataclass(frozen=True, kw_only=True)
class NewFile:
    """All of a file but its tensors' data."""

    nbytes: int
    fixed: tuple[Fixed, ...]
    checksums: tuple[Checksum, ...]
    offsets: Mapping[str, int]  # first byte of each tensor, by name

"""What a checkpoint's bytes say, beyond names and shapes. Read once, before the plan is made."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from ropeconv.formats.checkpoint import KeptTensor
from ropeconv.words.dtypes import DType
from ropeconv.words.errors import Unsupported
from ropeconv.words.model import Note


@dataclass(frozen=True, kw_only=True)
class StoredFreqs:
    """A table of frequencies found in the checkpoint, as numbers."""

    name: str
    dtype: DType
    values: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Facts that only bytes can tell.

    Attributes:
        tied: output and embedding are one tensor, or hold the same bytes.
        kept: dropped tensors by value, those of rank 0.
        notes: what was noticed, drift between ranks for example.
    """

    tied: bool
    kept: tuple[KeptTensor, ...]
    notes: tuple[Note, ...]

    @property
    def freqs(self) -> tuple[StoredFreqs, ...]:
        """The kept tables of frequencies, as numbers."""
        return tuple(map(stored_freqs, self.kept))


def stored_freqs(kept: KeptTensor) -> StoredFreqs:
    """A kept table as numbers."""
    values = to_floats(kept.dtype, kept.data)
    return StoredFreqs(name=kept.name, dtype=kept.dtype, values=values)


def to_floats(dtype: DType, data: bytes | bytearray) -> tuple[float, ...]:
    """The numbers that stored bytes mean. For small vectors; nothing is ever converted with it.

    >>> to_floats(DType.BF16, bytes([0x80, 0x3F]))
    (1.0,)
    """
    letters = {DType.F16: "e", DType.F32: "f", DType.F64: "d"}
    if dtype is DType.BF16:  # the upper half of a float32
        data = b"".join(b"\0\0" + data[at : at + 2] for at in range(0, len(data), 2))
        dtype = DType.F32
    if dtype not in letters:
        raise Unsupported(what=f"a vector of {dtype.value} cannot be read as numbers")
    return struct.unpack(f"<{len(data) // dtype.nbytes}{letters[dtype]}", data)

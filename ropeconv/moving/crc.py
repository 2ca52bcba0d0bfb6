"""CRC-32 of data that arrives in parts, in any order.

zlib sums bytes in sequence. Blocks are written by several threads, so each block is summed alone
and the sums are combined: appending n zero bytes multiplies a CRC by x^(8n) modulo the polynomial,
and CRCs add.

Source:
    zlib 1.3, crc32.c, crc32_combine (the identity, not the code).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import lru_cache

POLYNOMIAL = 0xEDB88320  # of CRC-32, lowest power in the highest bit


def fastest_crc32() -> Callable[[memoryview], int]:
    """The CRC-32 of one part: ISA-L's if the package `isal` is there, 53 GB/s; else zlib's, 4.3."""
    try:
        from isal.isal_zlib import crc32  # noqa: PLC0415 - optional
    except ImportError:
        return zlib.crc32
    return crc32


def combine(first: int, second: int, second_nbytes: int) -> int:
    """The CRC of two parts joined.

    >>> import zlib
    >>> combine(zlib.crc32(b"rope"), zlib.crc32(b"conv"), 4) == zlib.crc32(b"ropeconv")
    True
    """
    return _multiply(_power(second_nbytes), first) ^ second


def _multiply(a: int, b: int) -> int:
    """The product of two polynomials modulo the CRC's."""
    product = 0
    mask = 1 << 31
    while mask:
        if a & mask:
            product ^= b
        mask >>= 1
        b = (b >> 1) ^ POLYNOMIAL if b & 1 else b >> 1
    return product


@lru_cache(maxsize=4096)
def _power(nbytes: int) -> int:
    """x^(8 * nbytes) modulo the polynomial, by squaring. Few sizes occur: mostly cached."""
    result, square = 1 << 31, 1 << 23  # 1, and x^8
    while nbytes:
        if nbytes & 1:
            result = _multiply(square, result)
        square = _multiply(square, square)
        nbytes >>= 1
    return result


class Crc32Sum:
    """The CRC of a run of bytes from those of its parts; the parts must tile it exactly once.

    Parts come nearly in order, so they are joined as they come: only those ahead of a gap are kept.
    """

    def __init__(self, nbytes: int) -> None:
        self._nbytes = nbytes
        self._position = self._total = 0
        self._ahead: dict[int, tuple[int, int]] = {}

    def add(self, begin: int, nbytes: int, crc: int) -> None:
        """A part, by its place in the run."""
        self._ahead[begin] = (nbytes, crc)
        while self._position in self._ahead:
            nbytes, crc = self._ahead.pop(self._position)
            self._total = combine(self._total, crc, nbytes)
            self._position += nbytes

    @property
    def is_whole(self) -> bool:
        """Whether every part has come."""
        return self._position == self._nbytes

    def value(self) -> int:
        """The CRC of the whole run."""
        if not self.is_whole:
            missing = self._nbytes - self._position
            raise ValueError(f"{missing} of {self._nbytes} bytes have not been summed")
        return self._total

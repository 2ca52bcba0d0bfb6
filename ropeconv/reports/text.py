"""Numbers for people, and strangers' names made harmless for a line of text.

Tensor names and paths come from files that nobody has checked. A name may hold control characters
that XML forbids, lone surrogates that UTF-8 cannot say, or marks that turn the reading direction.
"""

from __future__ import annotations

import math
import unicodedata

# controls, marks of direction and other invisible ones, surrogates, line and paragraph separators
_UNSEEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
PLAIN_FROM, PLAIN_BELOW = 1e-3, 1e5  # between them a number needs no power of ten


def printable(text: object) -> str:
    r"""The text on one line, with every character that cannot be seen as an escape.

    >>> printable("a\nb\x00\u202e<\udcff>")
    'a\\x0ab\\x00\\u202e<\\udcff>'
    """
    return "".join(_escape(c) if unicodedata.category(c) in _UNSEEN else c for c in str(text))


def _escape(character: str) -> str:
    code = ord(character)
    if code > 0xFFFF:  # noqa: PLR2004 - the largest of four digits
        return f"\\U{code:08x}"
    return f"\\u{code:04x}" if code > 0xFF else f"\\x{code:02x}"  # noqa: PLR2004 - of two digits


def number(value: float) -> str:
    """Two digits, which is all that an error needs.

    >>> number(0.0), number(3.18e-05), number(2.456), number(float("inf"))
    ('0', '3.2e-05', '2.5', 'not a number')
    """
    if not math.isfinite(value):
        return "not a number"
    return f"{value:.2g}"


def short(value: float) -> str:
    """A number for a narrow cell.

    >>> short(0.0), short(3.18e-05), short(0.26), short(2.456), short(123456.0), short(math.inf)
    ('0', '3e-5', '0.26', '2.5', '1e5', 'NaN')
    """
    if not math.isfinite(value):
        return "NaN"
    if value == 0 or PLAIN_FROM * 10 <= abs(value) < 1000:  # noqa: PLR2004 - three digits
        return f"{value:.2g}" if abs(value) < 100 else f"{value:.0f}"  # noqa: PLR2004
    mantissa, power = f"{value:.0e}".split("e")
    return f"{mantissa}e{int(power)}"


def parts(value: float) -> tuple[str, int | None]:
    """A mantissa and a power of ten, None where a plain number says it.

    >>> parts(3.18e-05), parts(2.456), parts(0.0)
    (('3.2', -5), ('2.5', None), ('0', None))
    """
    if not math.isfinite(value) or value == 0 or PLAIN_FROM <= abs(value) < PLAIN_BELOW:
        return (f"{value:,.0f}" if 10 <= abs(value) < PLAIN_BELOW else number(value)), None  # noqa: PLR2004
    mantissa, power = f"{value:.1e}".split("e")
    return mantissa, int(power)


def counted(count: int, word: str) -> str:
    """A number with its noun.

    >>> counted(1, "layer"), counted(1234, "tensor")
    ('1 layer', '1,234 tensors')
    """
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def size(nbytes: int) -> str:
    """Bytes in decimal units.

    >>> size(5368904), size(900)
    ('5.4 MB', '900 bytes')
    """
    for unit, worth in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if nbytes >= worth:
            return f"{nbytes / worth:.1f} {unit}"
    return counted(nbytes, "byte")


def numbers(values: list[int]) -> str:
    """Ascending numbers with runs drawn together.

    >>> numbers([0, 1, 2, 5])
    '0-2, 5'
    """
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return ", ".join(f"{first}-{last}" if last > first else str(first) for first, last in runs)

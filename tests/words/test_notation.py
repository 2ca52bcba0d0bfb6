"""The notation of rows in family tables: what it means, and that nothing else is accepted."""

from __future__ import annotations

import pytest
import strategies
from hypothesis import given

from ropeconv.knowledge.family import parse_rows
from ropeconv.words.errors import RowsError
from ropeconv.words.layout import Keep, Repeat, Rope, Rows

SIZES = {"H": 6, "K": 2, "D": 10, "C": 44}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Keep(C)", (Keep(44),)),
        ("Repeat(H, Rope(D))", (Repeat(6, Rope(10)),)),
        ("Repeat(K, Repeat(H - 4, Rope(D)), Rope(D), Keep(D))",
         (Repeat(2, Repeat(2, Rope(10)), Rope(10), Keep(10)),)),
        ("Repeat(H, Rope(4), Keep(D - 4)), Keep(K * D + 3)",
         (Repeat(6, Rope(4), Keep(6)), Keep(23))),
    ],
)  # fmt: skip
def test_parse_rows_of_the_notation_gives_the_rows(text: str, expected: tuple[Rows, ...]) -> None:
    assert expected == parse_rows(text, SIZES)


@given(strategies.rows)
def test_parse_rows_reads_back_what_rows_say_of_themselves(parts: tuple[Rows, ...]) -> None:
    def spell(part: Rows) -> str:
        match part:
            case Keep(count):
                return f"Keep({count})"
            case Rope(dim):
                return f"Rope({dim})"
            case Repeat(times, inner):
                return f"Repeat({times}, {', '.join(map(spell, inner))})"

    assert parts == parse_rows(", ".join(map(spell, parts)), {})


@pytest.mark.parametrize(
    "text",
    ["", "Keep", "Keep()", "Keep(C, C)", "Keep(count=3)", "Repeat(H)", "Rope(D) + Keep(3)",
     "Rope(Z)", "Keep(C / 2)", "Keep(-C)", "Keep(3.5)", "Keep(__import__('os').getpid())",
     "print(3)",
     "Keep(", "Keep(3)) or (Keep(3)", "lambda: 3"],
)  # fmt: skip
def test_parse_rows_of_anything_else_is_refused(text: str) -> None:
    with pytest.raises(RowsError):
        parse_rows(text, SIZES)


def test_parse_rows_when_sizes_leave_a_negative_rest_is_refused() -> None:
    with pytest.raises(RowsError, match="negative number of rows"):
        parse_rows("Keep(D - C)", SIZES)

"""Errors: their codes and exit codes are what pipelines depend on."""

from __future__ import annotations

from collections.abc import Iterator

from ropeconv.words import errors
from ropeconv.words.errors import RopeconvError

FROZEN = {
    "error": 70, "usage": 2, "rows-do-not-fit": 2, "source-unreadable": 4, "not-a-checkpoint": 4,
    "source-incomplete": 4, "file-broken": 4, "file-refused": 4, "refused": 5, "unsupported": 5,
    "already-converted": 5, "contradiction": 5, "not-said": 5, "target-unwritable": 6,
    "target-exists": 6, "no-room": 6, "no-memory": 6, "another-run": 6, "target-busy": 6,
    "interrupted": 130,
}  # fmt: skip


def _family(kind: type[RopeconvError]) -> Iterator[type[RopeconvError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _family(child)


def test_codes_of_all_errors_are_frozen_with_their_exit_codes() -> None:
    kinds = [kind for kind in _family(RopeconvError) if kind.__module__ == errors.__name__]

    assert {kind.code: int(kind.exit_code) for kind in kinds} == FROZEN
    assert len({kind.code for kind in kinds}) == len(kinds), "two errors share a code"


def test_exit_codes_are_frozen() -> None:
    assert {code.name: code.value for code in errors.ExitCode} == {
        "DONE": 0, "DIFFERENT": 1, "USAGE": 2, "INCONCLUSIVE": 3, "SOURCE": 4, "REFUSED": 5,
        "TARGET": 6, "BUG": 70, "INTERRUPTED": 130,
    }  # fmt: skip


def test_text_of_an_error_is_what_why_fix() -> None:
    error = errors.BrokenFile(what="`x` is cut", why="3 of 4 bytes", fix="download it again")

    assert str(error) == "`x` is cut\nwhy: 3 of 4 bytes\nfix: download it again"
    assert str(errors.Unsupported(what="`x` is new")) == "`x` is new"


def test_error_without_a_fix_of_its_own_has_the_usual_one_of_its_kind() -> None:
    own = errors.BrokenFile(what="`x` is cut", fix="get it by another way")
    usual = errors.BrokenFile(what="`x` is cut")

    assert own.fix == "get it by another way"
    assert usual.fix == errors.BrokenFile.usual_fix == "download or save the file again"
    assert str(usual).endswith("\nfix: download or save the file again")

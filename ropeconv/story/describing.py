"""Describe: read the user's table of a model type that ropeconv has none for."""

from __future__ import annotations

from pathlib import Path

from ropeconv.formats.checkpoint import read_text
from ropeconv.knowledge.family import Family
from ropeconv.words.errors import RopeconvError, UsageError


def described_family(path: Path) -> Family:
    """The table that a TOML file describes, for a model type that ropeconv has none for.

    Raises:
        UsageError: it cannot be read, or is no such description.
    """
    from ropeconv.knowledge.described import read_description  # noqa: PLC0415 - TOML takes 5 ms

    try:
        text = read_text(path)
    except RopeconvError as error:  # its advice is for checkpoints
        raise UsageError(
            what=error.what, fix="name the TOML file that describes the model type"
        ) from error
    return read_description(text, str(path))

"""Describe: read the user's table of a model type that ropeconv has none for."""

from __future__ import annotations

from pathlib import Path

from ropeconv.formats.checkpoint import read_text
from ropeconv.knowledge.described import read_description
from ropeconv.knowledge.family import Family


def described_family(path: Path) -> Family:
    """The table that a TOML file describes, for a model type that ropeconv has none for.

    Raises:
        UsageError: it is no such description.
    """
    return read_description(read_text(path), str(path))

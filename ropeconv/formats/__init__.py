"""Formats on disk. What a folder holds is decided here, by names, and nowhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ropeconv.formats import hf, meta
from ropeconv.formats.checkpoint import Checkpoint, folder_names
from ropeconv.words.errors import Contradiction, NotACheckpoint
from ropeconv.words.model import Format

if TYPE_CHECKING:
    from pathlib import Path


def discover(root: Path) -> Checkpoint:
    """The checkpoint in a folder, whatever its format.

    Raises:
        Contradiction: the folder holds a checkpoint in each format.
        NotACheckpoint: it holds none.
    """
    names = folder_names(root)
    found = _formats(names)
    if len(found) > 1:
        raise Contradiction(
            what=f"`{root}` holds a checkpoint in Meta's format and one in Hugging Face's",
            why="either could be meant",
            fix="move one of the two to a folder of its own",
        )
    if Format.META in found or ("params.json" in names and not found):
        return meta.discover(root)
    if Format.HF in found or "config.json" in names:
        return hf.discover(root)
    raise NotACheckpoint(
        what=f"`{root}` holds no checkpoint",
        why="expected config.json with safetensors, or params.json with consolidated.NN.pth",
        fix="name the folder that holds the weights and their config",
    )


def only_format(root: Path) -> Format | None:
    """The one format that a folder holds a checkpoint in, by its names; None if none, or both."""
    found = _formats(folder_names(root))
    return found.pop() if len(found) == 1 else None


def _formats(names: list[str]) -> set[Format]:
    known = ((Format.META, meta.looks_like), (Format.HF, hf.looks_like))
    return {found for found, looks_like in known if looks_like(names)}

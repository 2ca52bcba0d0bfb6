"""Formats on disk. What a folder holds is decided here, by names, and nowhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ropeconv.formats import hf, meta
from ropeconv.formats.checkpoint import Checkpoint, folder_names
from ropeconv.words.errors import Contradiction, NotACheckpoint

if TYPE_CHECKING:
    from pathlib import Path


def discover(root: Path) -> Checkpoint:
    """The checkpoint in a folder, whatever its format.

    Raises:
        Contradiction: the folder holds a checkpoint in each format.
        NotACheckpoint: it holds none.
    """
    names = folder_names(root)
    is_hf, is_meta = hf.looks_like(names), meta.looks_like(names)
    if is_hf and is_meta:
        raise Contradiction(
            what=f"`{root}` holds a checkpoint in Meta's format and one in Hugging Face's",
            why="either could be meant",
            fix="move one of the two to a folder of its own",
        )
    if is_meta or ("params.json" in names and not is_hf):
        return meta.discover(root)
    if is_hf or "config.json" in names:
        return hf.discover(root)
    raise NotACheckpoint(
        what=f"`{root}` holds no checkpoint",
        why="expected config.json with safetensors, or params.json with consolidated.NN.pth",
        fix="name the folder that holds the weights and their config",
    )

"""Side files go along with the weights: tokenizers, licences and the like, copied verbatim."""

from __future__ import annotations

from ropeconv.formats.checkpoint import Checkpoint
from ropeconv.thinking.moves import Move, copy_move
from ropeconv.thinking.plan import TargetFile


def side_files(checkpoint: Checkpoint, first: int) -> tuple[list[TargetFile], list[Move]]:
    """Targets and moves of the side files; targets are numbered from first."""
    files: list[TargetFile] = []
    moves: list[Move] = []
    for number in checkpoint.side_files:
        found = checkpoint.files[number]
        moves.append(copy_move(found.name, found.nbytes, number, first + len(files)))
        files.append(TargetFile(name=found.name, nbytes=found.nbytes, fixed=(), checksums=()))
    return files, moves

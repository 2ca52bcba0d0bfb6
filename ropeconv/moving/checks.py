"""What is asked before a conversion begins, and before it ends."""

from __future__ import annotations

import os
from pathlib import Path

from ropeconv.formats.checkpoint import Checkpoint, reason
from ropeconv.formats.folder import CONFIG_NAMES
from ropeconv.words.errors import SourceError, TargetExists


def check_target(target: Path, source: Path, *, overwrite: bool) -> None:
    """Whether a conversion may make, or replace, that folder.

    Raises:
        TargetExists: something is in the way.
    """
    inner, outer = target.resolve(), source.resolve()
    if inner == outer or outer in inner.parents or inner in outer.parents:
        raise TargetExists(
            what=f"the target `{target}` and the source `{source}` lie in each other",
            fix="choose a folder outside the source",
        )
    if not os.path.lexists(target) or (target.is_dir() and not any(target.iterdir())):
        return
    if not overwrite:
        raise TargetExists(
            what=f"`{target}` exists already",
            why="ropeconv never mixes its output with other files",
            fix="choose another folder; `Handling(overwrite=True)` replaces this one at the end",
        )
    if why := _why_not_replace(target):
        raise TargetExists(
            what=f"`{target}` will not be replaced",
            why=why,
            fix="choose another folder, or remove this one yourself",
        )


def _why_not_replace(target: Path) -> str:
    """Why a folder is no checkpoint that may go; empty if it may."""
    if target.is_symlink() or not target.is_dir():
        return "it is no folder of its own"
    entries = list(target.iterdir())
    if not CONFIG_NAMES & {entry.name for entry in entries}:
        return "it is no checkpoint: no config.json, params.json or ropeconv.json is there"
    folders = sorted(e.name for e in entries if e.is_dir() and not e.is_symlink())
    if folders:
        return f"it has the folder `{folders[0]}`, which would be lost"
    return ""


def check_unchanged(source: Checkpoint) -> None:
    """Refuse to finish if a source file is not what it was when the plan was made."""
    for number, file in enumerate(source.files):
        path = source.path(number)
        try:
            status = path.stat()
        except OSError as error:
            raise SourceError(
                what=f"`{path}` vanished during the run",
                why=reason(error),
                fix="bring it back unchanged to go on; `Handling(restart=True)` begins afresh",
            ) from error
        if (status.st_size, status.st_mtime_ns) != (file.nbytes, file.mtime_ns):
            raise SourceError(
                what=f"`{path}` changed during the run",
                why="its size or time is not what it was when the plan was made",
                fix="leave the source alone during a run; `Handling(restart=True)` begins afresh",
            )

"""A target under construction: a hidden sibling folder that becomes the target by one rename."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from ropeconv.formats.checkpoint import reason
from ropeconv.words.errors import NoRoom, TargetError, TargetExists

SUFFIX = ".ropeconv-partial"


class Staging:
    """The folder in which a target grows. Only `seal` makes it appear under its own name."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.folder = target.parent / f".{target.name}{SUFFIX}"

    def path(self, name: str) -> Path:
        """Where a file of the target lies until the seal."""
        return self.folder / name

    def begin(self) -> None:
        """An empty staging folder; what an interrupted run left is removed."""
        try:
            self.target.parent.mkdir(parents=True, exist_ok=True)
            if self.folder.exists():
                shutil.rmtree(self.folder)
            self.folder.mkdir()
        except OSError as error:
            raise TargetError(
                what=f"cannot make `{self.folder}`",
                why=reason(error),
                fix="choose a folder that you may write to",
            ) from error

    def allocate(self, files: Iterable[tuple[str, int]]) -> None:
        """Give each file its final size and, where the system can, its blocks: a full disk shows now."""
        for name, nbytes in files:
            try:
                descriptor = os.open(self.path(name), os.O_CREAT | os.O_WRONLY | getattr(os, "O_BINARY", 0), 0o666)
                try:
                    if hasattr(os, "posix_fallocate") and nbytes:
                        os.posix_fallocate(descriptor, 0, nbytes)
                    else:
                        os.ftruncate(descriptor, nbytes)
                finally:
                    os.close(descriptor)
            except OSError as error:
                raise TargetError(
                    what=f"cannot make room for `{name}` ({nbytes} bytes)", why=reason(error)
                ) from error

    def seal(self, texts: Iterable[tuple[str, str]]) -> None:
        """Flush everything, write index, configs and manifest last, and let the target appear."""
        try:
            for path in sorted(self.folder.iterdir()):
                _flush(path)
            for name, text in texts:
                self.path(name).write_text(text, encoding="utf-8")
                _flush(self.path(name))
            _flush(self.folder)
            if self.target.is_dir() and not any(self.target.iterdir()):
                self.target.rmdir()
            self.folder.rename(self.target)
            _flush(self.target.parent)
        except OSError as error:
            raise TargetError(what=f"cannot finish `{self.target}`", why=reason(error)) from error


def check_target(target: Path, source: Path, nbytes: int) -> None:
    """Whether a conversion may begin: nothing is in the way, and there is room.

    Raises:
        TargetExists: something is at that path already.
        NoRoom: the disk is too small.
    """
    if target.resolve() == source.resolve() or source.resolve() in target.resolve().parents:
        raise TargetExists(
            what=f"the target `{target}` lies in the source",
            fix="choose a folder outside the source",
        )
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise TargetExists(
            what=f"`{target}` exists already",
            why="ropeconv never mixes its output with other files",
            fix="choose another folder, or remove this one",
        )
    nearest = next(parent for parent in target.resolve().parents if parent.exists())
    free = shutil.disk_usage(nearest).free
    if free < nbytes:
        raise NoRoom(
            what=f"the target needs {nbytes} bytes, `{nearest}` has {free} free",
            fix="free some space, or choose a folder on another disk",
        )


def _flush(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open a folder; its rename is durable by itself
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

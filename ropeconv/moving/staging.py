"""A target under construction: a hidden sibling folder that becomes the target by one rename.

`.NAME.ropeconv-partial` holds the lock, the journal, and `files`, which is what will be called
NAME. While a target is replaced, the old one lies there as `replaced` between two renames.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from ropeconv.formats.checkpoint import reason
from ropeconv.moving.effort import Effort
from ropeconv.moving.files import BINARY, flush
from ropeconv.moving.journal import (
    JOURNAL,
    Heading,
    Journal,
    is_in_place,
    read_heading,
    this_boot,
)
from ropeconv.moving.lock import TargetLock
from ropeconv.words.errors import AnotherRun, NoRoom, TargetError

SUFFIX = ".ropeconv-partial"
Sizes = Sequence[tuple[str, int]]  # name and bytes of each file


class Staging:
    """The folder in which a target grows. Only `seal` makes it appear under its own name."""

    def __init__(self, target: Path) -> None:
        self.target = Path(os.path.abspath(target))  # noqa: PTH100 - links of the last part are kept
        self.folder = self.target.parent / f".{self.target.name}{SUFFIX}"
        self._files = self.folder / "files"
        self._replaced = self.folder / "replaced"
        self._lock: TargetLock | None = None
        self._journal: Journal | None = None

    def path(self, name: str) -> Path:
        """Where a file of the target lies until the seal."""
        return self._files / name

    @property
    def journal(self) -> Journal:
        """The journal of this run; there is one from `begin` on."""
        if self._journal is None:
            raise TargetError(what=f"`{self.folder}` has not begun")
        return self._journal

    def __enter__(self) -> Self:
        """Take the lock, and set right what a crash within the seal has left.

        Raises:
            TargetBusy: another run is at work on the same target.
            TargetError: the folder cannot be made.
        """
        try:
            self.target.parent.mkdir(parents=True, exist_ok=True)
            self._lock = TargetLock(self.folder, self.target)
            if self._replaced.exists():
                self._undo_half_a_seal()
        except OSError as error:
            raise _cannot_make(self.folder, error) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go of the lock. Work that was begun stays, for a run that goes on."""
        begun = (self.folder / JOURNAL).exists() or self._files.exists()
        self._let_go(remove=not begun)

    def discard(self) -> None:
        """Throw the work away: this target is not to be."""
        self._let_go(remove=True)

    def _let_go(self, *, remove: bool) -> None:
        """Remove the folder, then release: nobody must get hold of a lock that vanishes."""
        if self._journal is not None:
            self._journal.close()
        if self._lock is None:
            return
        lock, self._journal, self._lock = self._lock, None, None
        if os.name == "nt":
            lock.release()  # Windows cannot remove an open file
        if remove:
            (self.folder / JOURNAL).unlink(missing_ok=True)  # first: without it nothing is resumed
            shutil.rmtree(self.folder)
        if os.name != "nt":
            lock.release()

    def _undo_half_a_seal(self) -> None:
        if self.target.exists():
            shutil.rmtree(self._replaced)
        else:
            self._replaced.rename(self.target)

    def foresee(self, key: str, sizes: Sizes, effort: Effort, *, restart: bool) -> Effort:
        """The effort that `begin` would return; nothing is changed."""
        heading = self._heading(restart=restart)
        if heading is None or heading.key != key or not self._can_go_on(heading, sizes, effort):
            return effort
        return replace(effort, block_nbytes=heading.block_nbytes)

    def _heading(self, *, restart: bool) -> Heading | None:
        """Of the conversion that was interrupted, if its work is wanted."""
        return None if restart else read_heading(self.folder / JOURNAL)

    def _can_go_on(self, heading: Heading, sizes: Sizes, effort: Effort) -> bool:
        return heading.boot in {"", _boot(effort)} and self._has_files(sizes)

    def begin(
        self,
        key: str,
        sizes: Sizes,
        effort: Effort,
        *,
        restart: bool,
        prepare: Callable[[], None] = lambda: None,
    ) -> Effort:
        """Go on with an interrupted run of the same plan, or begin with empty files.

        Args:
            key: the plan's journal key.
            sizes: the files that blocks fill.
            effort: as it was chosen for a fresh run.
            restart: throw an interrupted run's work away, whatever its plan.
            prepare: fills the fresh files with what needs no block.

        Returns:
            The effort to work with: blocks are cut as the journal says.

        Raises:
            AnotherRun: an interrupted run of another plan lies there, or one in place.
            NoRoom: the disk is full.
        """
        heading = self._heading(restart=restart)
        if not restart and heading is None and is_in_place(self.folder / JOURNAL):
            raise AnotherRun(
                what=f"`{self.target}` is in the middle of a conversion in place",
                why="its rows are partly in one layout, partly in the other, and only what lies in"
                f" `{self.folder}` can finish or undo that",
                fix="repeat that command first; `Handling(restart=True)` throws its work away, and"
                " with it what was there",
            )
        if heading is not None and heading.key != key:
            raise AnotherRun(
                what=f"`{self.folder}` holds the work of an interrupted run of another plan",
                why="its source, options or version differ; a source file that changed counts too",
                fix="repeat that run as it was to go on; `Handling(restart=True)` throws its work"
                " away",
            )
        try:
            if heading is not None and self._can_go_on(heading, sizes, effort):
                self._journal = Journal(self.folder / JOURNAL, heading)
                self._journal.load()
            else:
                self._begin_afresh(sizes, prepare)
                boot = _boot(effort)
                heading = Heading(key=key, block_nbytes=effort.block_nbytes, boot=boot)
                self._journal = Journal(self.folder / JOURNAL, heading)
        except OSError as error:
            raise _cannot_make(self.folder, error) from error
        return replace(effort, block_nbytes=heading.block_nbytes)

    def _has_files(self, sizes: Sizes) -> bool:
        """Whether every file is there in its full size; else someone else was here."""
        try:
            return all(self.path(name).stat().st_size == nbytes for name, nbytes in sizes)
        except OSError:
            return False

    def _begin_afresh(self, sizes: Sizes, prepare: Callable[[], None]) -> None:
        (self.folder / JOURNAL).unlink(missing_ok=True)
        if self._files.exists():
            shutil.rmtree(self._files)
        self._files.mkdir()
        prepare()
        for name, nbytes in sizes:
            self._allocate(name, nbytes)

    def _allocate(self, name: str, nbytes: int) -> None:
        """Give a file its size and, where the system can, its blocks: a full disk shows now."""
        try:
            descriptor = os.open(self.path(name), os.O_CREAT | os.O_WRONLY | BINARY, 0o666)
            try:
                if hasattr(os, "posix_fallocate") and nbytes:
                    os.posix_fallocate(descriptor, 0, nbytes)
                else:
                    os.ftruncate(descriptor, nbytes)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise NoRoom(
                what=f"cannot make room for `{name}` ({nbytes} bytes)",
                why=reason(error),
                fix="free some space, or choose a folder on another disk",
            ) from error

    def staged_nbytes(self) -> int:
        """Bytes of the disk that an interrupted run has taken already."""
        try:
            found = [path.stat() for path in self._files.iterdir()]
        except OSError:
            return 0
        return sum(getattr(status, "st_blocks", 0) * 512 for status in found)

    def seal(self, texts: Sequence[tuple[str, str]], *, sync: bool) -> None:
        """Flush everything, write index, configs and manifest last, and let the target appear.

        Whatever is at the target's path has been checked by `check_target`: nothing, an empty
        folder, or a checkpoint that may be replaced.
        """
        try:
            self._flush_all(sync=sync)
            for name, text in texts:
                self.path(name).write_text(text, encoding="utf-8", newline="\n")
                if sync:
                    flush(self.path(name))
            if sync:
                flush(self._files)
            self._appear()
            if sync:
                flush(self.target.parent)
            self._let_go(remove=True)
        except OSError as error:
            raise _cannot_finish(self.target, error) from error

    def put_in_place(self, name: str, text: str) -> None:
        """Put one text into the target, which is there already, whole or not at all.

        Raises:
            TargetError: the target or the hidden folder cannot be written.
        """
        fresh = self.folder / name
        try:
            fresh.write_text(text, encoding="utf-8", newline="\n")
            flush(fresh)
            fresh.replace(self.target / name)
            flush(self.target)
        except OSError as error:
            raise _cannot_finish(self.target / name, error) from error

    def _flush_all(self, *, sync: bool) -> None:
        if sync:
            for path in sorted(self._files.iterdir()):
                flush(path)

    def _appear(self) -> None:
        if self.target.is_dir() and not any(self.target.iterdir()):
            self.target.rmdir()
        if not self.target.exists():
            self._files.rename(self.target)
            return
        self.target.rename(self._replaced)
        try:
            self._files.rename(self.target)
        except OSError:
            self._replaced.rename(self.target)
            raise


def _boot(effort: Effort) -> str:
    """What a journal's heading says of when its lines may be trusted."""
    return "" if effort.sync else this_boot()


def _cannot_make(folder: Path, error: OSError) -> TargetError:
    return TargetError(
        what=f"cannot make `{folder}`",
        why=reason(error),
        fix="choose a folder that you may write to",
    )


def _cannot_finish(path: Path, error: OSError) -> TargetError:
    return TargetError(
        what=f"cannot finish `{path}`",
        why=reason(error),
        fix="set this right, then run the same command again: what is written is kept",
    )

"""Runs blocks of work on a small pool of threads. System calls release the interpreter's lock."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Protocol

from ropeconv.thinking.blocks import Block
from ropeconv.words.errors import Interrupted
from ropeconv.words.events import BytesDone, Listener

POLL_SECONDS = 0.2  # how soon the main thread notices Ctrl-C


class Worker(Protocol):
    """What one thread does with blocks. It is made, used and closed in that thread."""

    def run(self, block: Block) -> int:
        """Do the block's work; returns the bytes to count as done."""

    def close(self) -> None:
        """Release what the worker holds."""


def run_blocks(
    work: Iterator[Block], make_worker: Callable[[], Worker], *, jobs: int, listen: Listener
) -> None:
    """Run every block once, in no particular order. The first failure stops all and is raised.

    Raises:
        Interrupted: Ctrl-C; every thread has stopped.
    """
    turn = threading.Lock()
    stop = threading.Event()
    failures: list[BaseException] = []

    def take() -> Block | None:
        with turn:
            return None if stop.is_set() else next(work, None)

    def labour() -> None:
        try:
            worker = make_worker()
            try:
                while (block := take()) is not None:
                    nbytes = worker.run(block)
                    with turn:
                        listen(BytesDone(nbytes=nbytes))
            finally:
                worker.close()
        except BaseException as error:  # noqa: BLE001 - carried to the main thread and raised there
            failures.append(error)
            stop.set()

    threads = [threading.Thread(target=labour, daemon=True) for _ in range(jobs)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(POLL_SECONDS)
    except KeyboardInterrupt:
        stop.set()
        for thread in threads:
            thread.join()
        raise Interrupted(
            what="stopped by the keyboard",
            why="nothing that looks finished is left behind",
            fix="run the same command again",
        ) from None
    if failures:
        raise failures[0]

"""One conversion in a process of its own, which may kill itself at a chosen call to the system.

The argument is a JSON object:
    work: "hf-to-meta", "meta-to-hf", "relayout" or "in-place"
    source, target: folders
    jobs, block_nbytes, io, sync: the effort
    ranks: of a Meta target
    layout: of a relayout
    overwrite, restart, hashes: how to handle the target
    die_at: number of the changing system call at which to die by SIGKILL; null for none
    after: die when that call has returned, not before it is made
Prints the number of changing calls that were made, or the error's code and text.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from ropeconv.moving import inplace
from ropeconv.moving.effort import Effort, Io
from ropeconv.story.conversion import Handling, HfOptions, MetaOptions, convert
from ropeconv.story.relayout import relayout, relayout_in_place
from ropeconv.words.errors import RopeconvError
from ropeconv.words.layout import LAYOUTS

CHANGING = ("pwrite", "write", "fsync", "rename", "unlink", "rmdir", "mkdir", "posix_fallocate")


def arm(die_at: int | None, *, after: bool) -> itertools.count[int]:
    """Count the calls that change anything on the disk, and die at one of them."""
    counter = itertools.count()

    def armed(call: Any) -> Any:
        def counted(*arguments: Any, **named: Any) -> Any:
            number = next(counter)
            if number == die_at and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = call(*arguments, **named)
            if number == die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return counted

    for name in CHANGING:
        setattr(os, name, armed(getattr(os, name)))
    return counter


def main() -> None:
    job = json.loads(sys.argv[1])
    source, target = Path(job["source"]), Path(job["target"])
    effort = Effort(
        jobs=job.get("jobs", 2),
        block_nbytes=job.get("block_nbytes", 4096),
        io=Io(job.get("io", "buffered")),
        sync=job.get("sync", True),
    )
    handling = Handling(
        overwrite=job.get("overwrite", False),
        restart=job.get("restart", False),
        hashes=job.get("hashes", False),
    )
    inplace.PORTION_BLOCKS = 3  # so that a small model has several
    counter = arm(job.get("die_at"), after=job.get("after", False))
    try:
        match job["work"]:
            case "hf-to-meta":
                options = MetaOptions(num_ranks=job.get("ranks", 2))
                convert(source, target, options, effort=effort, handling=handling)
            case "meta-to-hf":
                hf = HfOptions(max_shard_nbytes=job.get("max_shard_nbytes", 10**6))
                convert(source, target, hf, effort=effort, handling=handling)
            case "relayout":
                layout = LAYOUTS[job["layout"]]
                relayout(source, target, layout, effort=effort, handling=handling)
            case "in-place":
                layout = LAYOUTS[job["layout"]]
                relayout_in_place(source, layout, block_nbytes=effort.block_nbytes)
            case other:
                raise SystemExit(f"unknown work {other}")
    except RopeconvError as error:
        sys.stdout.write(f"{error.code}: {error}")
        raise SystemExit(int(error.exit_code)) from None
    sys.stdout.write(str(next(counter)))


if __name__ == "__main__":
    main()

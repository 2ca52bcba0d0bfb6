"""The command `ropeconv`, and `python -m ropeconv`."""

from __future__ import annotations

import gc
import os
import sys
from contextlib import suppress

from ropeconv.cli.main import main

# Objects between two searches for cycles. Imports make many and no cycles: 8 ms of 220.
NEW_OBJECTS = 100_000


def command() -> None:
    """Run, and end the process at once: to take modules apart takes 15 ms, with torch a second."""
    gc.set_threshold(NEW_OBJECTS)
    try:
        main()
    except SystemExit as ended:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # nobody reads, or it is closed
                stream.flush()
        os._exit(ended.code if isinstance(ended.code, int) else 0)


if __name__ == "__main__":
    command()

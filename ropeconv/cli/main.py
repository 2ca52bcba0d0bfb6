"""The entry point: whatever happens, it ends with words and an exit code."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from typing import TYPE_CHECKING

from ropeconv.cli.speech import Speech, failed, stopped
from ropeconv.cli.streams import let_readers_leave
from ropeconv.words.errors import RopeconvError

if TYPE_CHECKING:
    from sys import UnraisableHookArgs


def main() -> None:
    """Run the command line, and exit."""
    let_readers_leave()
    # what is said by then is the answer: a late Ctrl-C must not turn it into another exit code
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
    # until a command speaks for itself
    words = sys.argv[1:]
    speech = Speech(
        json="--json" in words, debug="--debug" in words, no_color="--no-color" in words
    )

    def unraisable(lost: UnraisableHookArgs) -> None:
        if lost.exc_type is KeyboardInterrupt:  # in a callback of an import, once in 700 tries
            os._exit(stopped(speech))
        sys.__unraisablehook__(lost)

    sys.unraisablehook = unraisable  # Python would drop the Ctrl-C, and go on
    try:
        code = _run()
        sys.stdout.flush()
    except RopeconvError as error:
        code = failed(speech, error)
    except KeyboardInterrupt:
        code = stopped(speech)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # taking torch apart takes a second, and somebody waits
    sys.exit(code)


def _run() -> int:
    from ropeconv.cli.app import run

    try:
        return run()
    except SystemExit as ended:  # a command's own exit code
        return ended.code if isinstance(ended.code, int) else 0

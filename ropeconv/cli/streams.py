"""stdout and stderr whose reader may leave, as `| head` does, without anybody being told.

The work goes on and its exit code stays what it would have been: a release gate behind `| head`
must neither pass another model nor fail for the pipe. Dying by SIGPIPE, as `cat` does, would do the
latter.
"""

from __future__ import annotations

import os
import sys
from io import BufferedWriter, FileIO, TextIOWrapper


class _Patient(TextIOWrapper):
    """A text stream that speaks into the void once nobody reads."""

    def write(self, text: str, /) -> int:
        """Write what a reader, if there is one, will see."""
        try:
            return super().write(text)
        except BrokenPipeError:
            self._speak_to_nobody()
            return len(text)

    def flush(self) -> None:
        """Hand everything over."""
        try:
            super().flush()
        except BrokenPipeError:
            self._speak_to_nobody()

    def _speak_to_nobody(self) -> None:
        void = os.open(os.devnull, os.O_WRONLY)
        os.dup2(void, self.fileno())
        os.close(void)


def let_readers_leave() -> None:
    """Make the process's own streams patient. Names of files may hold bytes that are no text."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller: `>&-`
            setattr(sys, name, _Patient(BufferedWriter(FileIO(os.devnull, "w"))))
        elif type(stream) is TextIOWrapper:
            patient = _Patient(
                stream.detach(),
                encoding=stream.encoding,
                errors="backslashreplace",
                line_buffering=stream.line_buffering,
                write_through=stream.write_through,
            )
            setattr(sys, name, patient)

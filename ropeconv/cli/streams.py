"""stdout and stderr whose reader may leave, as `| head` does, without anybody being told.

The work goes on and its exit code stays what it would have been: a release gate behind `| head`
must neither pass another model nor fail for the pipe. Dying by SIGPIPE, as `cat` does, would do the
latter.
"""

from __future__ import annotations

import os
import sys
from io import BufferedWriter, FileIO, TextIOWrapper

from ropeconv.words.errors import TargetError


class _Patient(TextIOWrapper):
    """A text stream that speaks into the void once nobody reads.

    Raises:
        TargetError: the result cannot be written for another reason, as on a full disk.
    """

    def write(self, text: str, /) -> int:
        """Write what a reader, if there is one, will see."""
        try:
            return super().write(text)
        except OSError as error:
            self._give_up(error)
            return len(text)

    def flush(self) -> None:
        """Hand everything over."""
        try:
            super().flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        void = os.open(os.devnull, os.O_WRONLY)
        os.dup2(void, self.fileno())
        os.close(void)
        if self.name == "<stdout>" and not isinstance(error, BrokenPipeError):
            raise TargetError(
                what="cannot write the result to stdout",
                why=(error.strerror or str(error)).lower(),
                fix="send it where there is room",
            ) from error


def let_readers_leave() -> None:
    """Make the process's own streams patient. Names of files may hold bytes that are no text."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller: `>&-`
            patient = _Patient(BufferedWriter(FileIO(os.devnull, "w")))
        elif type(stream) is TextIOWrapper:
            patient = _Patient(
                stream.detach(),
                encoding=stream.encoding,
                errors="backslashreplace",
                line_buffering=stream.line_buffering,
                write_through=stream.write_through,
            )
        else:  # a test's
            continue
        setattr(sys, name, patient)
        setattr(sys, f"__{name}__", patient)  # of which the terminal's width is asked

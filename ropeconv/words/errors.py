"""Every way ropeconv can say no: what happened, why, and what to do about it.

Texts are lower case, without a full stop, names in backticks, the found beside the expected. A
traceback is never part of an answer; one that reaches a user is a bug in ropeconv.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What the process tells its caller. Frozen: pipelines depend on it."""

    DONE = 0  # done, or proved
    DIFFERENT = 1  # verify: not the same model
    USAGE = 2  # wrong usage
    INCONCLUSIVE = 3  # the check had no power, or nothing could be compared
    SOURCE = 4  # the source is unreadable, incomplete or hostile
    REFUSED = 5  # recognised but refused: unsupported, already converted, contradictory
    TARGET = 6  # the target cannot be written
    BUG = 70  # a bug in ropeconv
    INTERRUPTED = 130  # interrupted; run again to resume


class RopeconvError(Exception):
    """A failure that a user can understand and act upon.

    Attributes:
        code: a stable kebab-case name, for JSON and scripts.
        exit_code: what the command exits with.
        what: what happened.
        why: how we know, or what lies behind it; may be empty.
        fix: what to do next; may be empty. Settings are named as in Python: `Said(theta=...)`.
        usual_fix: of this kind of failure, where none of its own is said.
    """

    code = "error"
    exit_code = ExitCode.BUG
    usual_fix = ""

    def __init__(self, *, what: str, why: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.fix = fix or self.usual_fix

    def __str__(self) -> str:
        lines = [self.what]
        if self.why:
            lines.append(f"why: {self.why}")
        if self.fix:
            lines.append(f"fix: {self.fix}")
        return "\n".join(lines)


class UsageError(RopeconvError):
    """An option that does not exist, does not fit the others, or has no meaning here."""

    code = "usage"
    exit_code = ExitCode.USAGE


class RowsError(UsageError):
    """Rows that cannot be: an odd rotary span, a negative count, a tensor of another length."""

    code = "rows-do-not-fit"


class SourceError(RopeconvError):
    """The source cannot be read: missing, truncated, forged, or not a checkpoint."""

    code = "source-unreadable"
    exit_code = ExitCode.SOURCE
    usual_fix = "check that it is there, and that you may read it"


class NotACheckpoint(SourceError):
    """No weights of a known format at that path."""

    code = "not-a-checkpoint"


class IncompleteSource(SourceError):
    """A rank, shard, layer or tensor is missing."""

    code = "source-incomplete"
    usual_fix = "download what is missing"


class BrokenFile(SourceError):
    """A file whose structure is not what its format requires."""

    code = "file-broken"
    usual_fix = "download or save the file again"


class HostileFile(SourceError):
    """A file that asks for something no weights need: code, foreign paths, absurd sizes."""

    code = "file-refused"
    usual_fix = "do not use this file; get the weights from somebody you trust"


class Refused(RopeconvError):
    """Recognised, and refused for a stated reason."""

    code = "refused"
    exit_code = ExitCode.REFUSED


class Unsupported(Refused):
    """A family, tensor, dtype or setting that ropeconv does not know how to treat."""

    code = "unsupported"


class AlreadyConverted(Refused):
    """The source is already in the layout, or the format, that was asked for."""

    code = "already-converted"


class Contradiction(Refused):
    """Two claims about the source cannot both be true."""

    code = "contradiction"
    usual_fix = "check that config and weights are of one model"


class NotSaid(Refused):
    """A quantity of the model that no file states and that must not be guessed."""

    code = "not-said"


class TargetError(RopeconvError):
    """The target cannot be written."""

    code = "target-unwritable"
    exit_code = ExitCode.TARGET


class TargetExists(TargetError):
    """Something is already there."""

    code = "target-exists"


class NoRoom(TargetError):
    """The target's disk is too small for the bytes that the plan predicts."""

    code = "no-room"


class TargetBusy(TargetError):
    """Another run is writing to the same target right now."""

    code = "target-busy"


class AnotherRun(TargetError):
    """An interrupted run of another source, other options or another version left its work."""

    code = "another-run"


class NoMemory(TargetError):
    """The memory that is free is less than the plan needs."""

    code = "no-memory"


class Interrupted(RopeconvError):
    """The user, or the system, asked the run to stop."""

    code = "interrupted"
    exit_code = ExitCode.INTERRUPTED

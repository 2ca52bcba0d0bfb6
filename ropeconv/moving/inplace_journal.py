"""The journal of a rewrite in place: what is being done, and how far it is.

- The heading says what is being done, and the first bytes that files must have meanwhile.
- `begin N`: the old bytes of portion N are in the undo file.
- `undone N`: portion N has its old bytes again.
- `done N CRC`: the new bytes of portion N are in the checkpoint, and the CRC is of some of them.

Each line is durable before the next step.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ropeconv.formats.stamps import Sample
from ropeconv.moving.files import BINARY, flush
from ropeconv.moving.journal import JOURNAL

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Heading:
    """What an in-place run does, and what it needs to go on.

    Attributes:
        key: names what was asked for.
        digest: names the moves that this comes to.
        stamps: the checkpoint's, as they were.
        sizes: bytes of the files that are rewritten, by name.
        others: samples of what is not rewritten; another model has other ones.
        names: of all files, by the numbers that the undo file gives them.
        heads: first bytes that files must have, by name.
        held: the manifest holds the stamps.
        finishing: every row is in its place, only stamps are left.
    """

    key: str
    digest: str
    stamps: Mapping[str, str]
    sizes: Mapping[str, int]
    others: tuple[Sample, ...]
    names: tuple[str, ...]
    heads: Mapping[str, bytes]
    held: bool
    finishing: bool


class InPlaceJournal:
    """A journal in a folder beside the checkpoint."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / JOURNAL
        self.done: list[int] = []  # the sum of each portion that is done
        self.is_open = False  # whether a portion may be partly rewritten

    def read(self) -> Heading | None:
        """The heading, if a rewrite was interrupted; lines go into `done` and `is_open`."""
        try:
            text = self._path.read_text(encoding="ascii")
        except FileNotFoundError:
            return None
        whole = text[: text.rindex("\n") + 1]
        if whole != text:  # a line that a crash has torn counts for nothing, and ends here
            os.truncate(self._path, len(whole))
        first, *lines = whole.splitlines()
        fields = json.loads(first)
        if "stamps" not in fields:
            return None  # of a conversion into this folder
        for line in lines:
            word, *rest = line.split()
            self.is_open = word == "begin"
            if word == "done":
                self.done.append(int(rest[1], 16))
        heads = {name: base64.b64decode(head) for name, head in fields["heads"].items()}
        return Heading(
            key=fields["key"],
            digest=fields["digest"],
            stamps=fields["stamps"],
            sizes=fields["sizes"],
            others=tuple(Sample(**sample) for sample in fields["others"]),
            names=tuple(fields["names"]),
            heads=heads,
            held=fields["held"],
            finishing=fields["finishing"],
        )

    @property
    def has_begun(self) -> bool:
        """Whether a row may have been rewritten."""
        return self.is_open or bool(self.done)

    def put(self, heading: Heading) -> None:
        """Begin a journal, in place of what is there."""
        fields = {
            **vars(heading),
            "schema": SCHEMA,
            "others": [vars(sample) for sample in heading.others],
            "heads": {
                name: base64.b64encode(head).decode() for name, head in heading.heads.items()
            },
        }
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps(fields) + "\n", encoding="ascii")
        flush(fresh)
        fresh.replace(self._path)
        flush(self._path.parent)

    def begin(self) -> None:
        """The old bytes of the next portion are in the undo file."""
        self._say(f"begin {len(self.done)}")
        self.is_open = True

    def undone(self) -> None:
        """The open portion has its old bytes again."""
        self._say(f"undone {len(self.done)}")
        self.is_open = False

    def finish(self, crc: int) -> None:
        """The open portion has its new bytes."""
        self._say(f"done {len(self.done)} {crc:x}")
        self.done.append(crc)
        self.is_open = False

    def _say(self, line: str) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | BINARY)
        try:
            os.write(descriptor, f"{line}\n".encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

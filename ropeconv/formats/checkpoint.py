"""A checkpoint as found on disk: which tensor's bytes lie where. Formats alone fill it in."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ropeconv.words.dtypes import DType
from ropeconv.words.errors import BrokenFile, HostileFile, NotACheckpoint, SourceError
from ropeconv.words.layout import RopeLayout
from ropeconv.words.model import Claims, Format
from ropeconv.words.parts import Part

MAX_CONFIG_NBYTES = 64 * 10**6  # the largest index in use (DeepSeek-V3, 160 shards) has 9 MB


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """A file as it was when it was looked at; a later change is noticed by size and time."""

    name: str  # inside the checkpoint's folder
    nbytes: int
    mtime_ns: int


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """One contiguous tensor in one file. In a Meta checkpoint the same name lies in every rank."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    file: int  # index into Checkpoint.files
    offset: int  # of the first byte, in the file
    rank: int = 0

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * self.dtype.nbytes


@dataclass(frozen=True, kw_only=True)
class Carried:
    """What an earlier conversion kept for the way back, read from ropeconv.json.

    Attributes:
        config: text of the original config file of the other format; empty if there is none.
        dropped: tensors that the other format has no place for, with their bytes.
        embedding_split: how the original ranks split the embedding: "rows", "columns" or "".
    """

    config: str = ""
    dropped: tuple[KeptTensor, ...] = ()
    embedding_split: str = ""


@dataclass(frozen=True, kw_only=True)
class KeptTensor:
    """A small tensor kept by value."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    data: bytes


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A whole checkpoint: files, tensors, claims.

    Attributes:
        config: text of config.json or params.json, as found.
        weights: names of the files that hold tensors.
        side_files: indices into files: tokenizer and other files to copy verbatim.
        left_out: names in the folder that are neither weights nor copied, with the reason.
        stamp: the layout of the text's rows, as an earlier conversion recorded it.
        tower_stamps: those of towers.
    """

    root: Path
    format: Format
    claims: Claims
    config: str
    files: tuple[SourceFile, ...]
    tensors: tuple[StoredTensor, ...]
    num_ranks: int
    side_files: tuple[int, ...]
    left_out: tuple[tuple[str, str], ...]
    stamp: RopeLayout | None
    carried: Carried
    tower_stamps: tuple[tuple[Part, RopeLayout], ...] = ()

    def path(self, file: int) -> Path:
        """Where a file lies."""
        return self.root / self.files[file].name


def look_at(root: Path, name: str) -> SourceFile:
    """The file's facts; refuses what is not a plain file inside the folder.

    Links are followed (the Hugging Face cache is made of them) but must end in a regular file.
    """
    path = root / name
    try:
        status = path.stat()
    except OSError as error:
        raise SourceError(what=f"cannot read `{path}`", why=reason(error)) from error
    if not path.is_file():
        raise HostileFile(what=f"`{path}` is no regular file", fix="remove it from the checkpoint")
    return SourceFile(name=name, nbytes=status.st_size, mtime_ns=status.st_mtime_ns)


def folder_names(root: Path) -> list[str]:
    """Names in a checkpoint's folder, sorted."""
    if not root.exists():
        raise NotACheckpoint(what=f"`{root}` does not exist", fix="check the path")
    if not root.is_dir():
        raise NotACheckpoint(
            what=f"`{root}` is a file, expected a folder",
            fix="name the folder that holds the weights and their config",
        )
    try:
        return sorted(path.name for path in root.iterdir())
    except OSError as error:
        raise SourceError(what=f"cannot list `{root}`", why=reason(error)) from error


def plain_name(name: str, origin: str) -> str:
    """The name itself if it stays inside its folder."""
    if not name or name in {".", ".."} or any(sign in name for sign in ("/", "\\", "\0", ":")):
        raise HostileFile(
            what=f"`{origin}` names the file `{name[:80]}`, which is no plain file name",
            why="a checkpoint's files lie in its own folder",
            fix="do not trust this checkpoint; names with separators can reach any file of the"
            " machine",
        )
    return name


def read_text(path: Path) -> str:
    """A small text file, whole."""
    try:
        nbytes = path.stat().st_size
        if path.exists() and not path.is_file():  # a pipe waits for ever, a device never ends
            raise HostileFile(what=f"`{path}` is no regular file", why="a JSON file is one")
        if nbytes > MAX_CONFIG_NBYTES:
            raise HostileFile(
                what=f"`{path}` has {nbytes} bytes, expected a small JSON file",
                why=f"the limit is {MAX_CONFIG_NBYTES} bytes",
            )
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BrokenFile(what=f"`{path}` is no UTF-8 text", why="a JSON file is") from error
    except OSError as error:
        raise SourceError(what=f"cannot read `{path}`", why=reason(error)) from error


def parse_object(text: str, origin: str) -> dict[str, Any]:
    """A JSON object; duplicate keys, NaN and anything else are refused."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
            raise BrokenFile(what=f"`{origin}` has the key `{twice[:80]}` twice")
        return found

    def no_number(word: str) -> object:
        raise ValueError(f"{word} is no number of JSON's")

    try:
        value = json.loads(text, object_pairs_hook=unique, parse_constant=no_number)
    except (ValueError, RecursionError) as error:
        why = str(error) if isinstance(error, ValueError) else "nested too deeply"
        raise BrokenFile(what=f"`{origin}` is no JSON", why=why[:200]) from error
    if not isinstance(value, dict):
        raise BrokenFile(what=f"`{origin}` holds a {type(value).__name__}, expected an object")
    return value


def reason(error: OSError) -> str:
    """The system's words for a failure, lower case."""
    return (error.strerror or str(error)).lower()

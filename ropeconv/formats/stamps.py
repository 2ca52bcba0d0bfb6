"""The layout of a checkpoint's rows, as a conversion recorded it in what it made.

A stamp is an entry of a safetensors header's metadata, or a record of a .pth. Headers that other
tools wrote have no room for one. When their rows are rewritten where they lie, the manifest holds
the stamp, with sums of some of the rewritten rows: a manifest can outlive its weights.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ropeconv.formats.checkpoint import parse_object, plain_name, read_text, reason
from ropeconv.formats.folder import MANIFEST
from ropeconv.words.errors import (
    BrokenFile,
    Contradiction,
    IncompleteSource,
    SourceError,
    Unsupported,
)
from ropeconv.words.layout import LAYOUTS, RopeLayout
from ropeconv.words.parts import Part

UNFINISHED = "unfinished"  # the stamp of a file whose rows are being rewritten where they lie
STAMP_KEY = "ropeconv.layout"  # in safetensors metadata; a record of the same name in a .pth
MAX_SAMPLE_NBYTES = 1 << 10
HEXADECIMAL = re.compile("[0-9a-f]{8}")  # of fixed width, so that a manifest's size is known


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Some bytes of a rewritten row, and their CRC-32."""

    file: str
    offset: int
    nbytes: int
    crc32: int


@dataclass(frozen=True, kw_only=True)
class ManifestStamps:
    """Stamps that a manifest holds for files without room for them."""

    values: tuple[tuple[str, str], ...]
    samples: tuple[Sample, ...]


def stamp_key(part: Part) -> str:
    """The key of a part's stamp: a tower has one of its own."""
    return STAMP_KEY if part is Part.TEXT else f"{STAMP_KEY}.{part.value}"


def read_stamp(found: str | None, origin: str) -> RopeLayout | None:
    """The layout that a stamp declares."""
    if found is None:
        return None
    if found == UNFINISHED:
        raise IncompleteSource(
            what=f"`{origin}` is in the middle of a conversion in place",
            why="its rows are partly in one layout, partly in the other",
            fix="repeat the command that was interrupted, with the folder where it was then: its"
            " journal lies beside it",
        )
    if found not in LAYOUTS:
        raise Unsupported(
            what=f"`{origin}` is stamped with the layout `{found[:40]}`, which ropeconv does not"
            " know",
            fix="a newer ropeconv may have written it",
        )
    return LAYOUTS[found]


def with_stamps(metadata: Iterable[tuple[str, str]], stamps: Mapping[str, str]) -> dict[str, str]:
    """A header's metadata with these stamps and no others."""
    kept = {key: value for key, value in metadata if not key.startswith(STAMP_KEY)}
    return kept | dict(stamps)


def collect_stamps(root: Path, metadata: Mapping[str, Iterable[tuple[str, str]]]) -> dict[str, str]:
    """The stamps of a folder: those of its headers, or those that the manifest holds for them.

    Args:
        root: the folder.
        metadata: entries of the headers of all files that hold tensors, by name.

    Raises:
        Contradiction: shards are stamped differently, or the manifest speaks of other weights.
    """
    held = read_held(root)
    found: dict[str, dict[str, str]] = {
        name: {key: value for key, value in entries if key.startswith(STAMP_KEY)}
        for name, entries in metadata.items()
    }
    keys = {key for stamps in found.values() for key in stamps} | dict(held.values).keys()
    stamps: dict[str, str] = {}
    for key in sorted(keys):
        by_file = {name: stamped.get(key, "nothing") for name, stamped in found.items()}
        values = {value for value in by_file.values() if value != "nothing"}
        values |= {value for name, value in held.values if name == key}
        if UNFINISHED in values:
            stamps[key] = UNFINISHED  # whatever other files say: some may not be stamped yet
            continue
        if len(values) > 1 or len({*by_file.values()}) > 1:
            odd = sorted({value: name for name, value in by_file.items()}.items())
            said = ", ".join(f"`{name}` with {value}" for value, name in odd)
            raise Contradiction(
                what=f"the shards of `{root}` are stamped differently: {said}",
                fix="shards of two conversions were mixed; start from one of them",
            )
        stamps[key] = values.pop()
    for sample in held.samples if UNFINISHED not in stamps.values() else ():
        if sample.file not in metadata or not _is_there(root, sample):
            raise Contradiction(
                what=f"`{root / MANIFEST}` states the layout of rows that `{sample.file}` does not"
                " have",
                why="the rows were rewritten in place, and the weights have been replaced since",
                fix=f"remove `{MANIFEST}` if the weights come from elsewhere",
            )
    return stamps


def _is_there(root: Path, sample: Sample) -> bool:
    try:
        with (root / sample.file).open("rb") as file:
            file.seek(sample.offset)
            return zlib.crc32(file.read(sample.nbytes)) == sample.crc32
    except OSError as error:
        raise SourceError(what=f"cannot read `{root / sample.file}`", why=reason(error)) from error


def read_held(root: Path) -> ManifestStamps:
    """The stamps that a folder's manifest holds; none if there are none."""
    path = root / MANIFEST
    held = parse_object(read_text(path), str(path)).get("stamps") if path.is_file() else None
    if held is None:
        return ManifestStamps(values=(), samples=())
    match held:
        case {"values": dict(values), "samples": list(samples)} if all(
            isinstance(value, str) for value in values.values()
        ):
            return ManifestStamps(
                values=tuple(values.items()),
                samples=tuple(_sample(entry, path) for entry in samples),
            )
    raise _unknown(path)


def _sample(entry: object, path: Path) -> Sample:
    match entry:
        case {
            "file": str(file),
            "offset": int(offset),
            "nbytes": int(nbytes),
            "crc32": str(crc32),
        } if (
            0 <= offset < 1 << 63
            and 0 <= nbytes <= MAX_SAMPLE_NBYTES
            and HEXADECIMAL.fullmatch(crc32)
        ):
            name = plain_name(file, str(path))
            return Sample(file=name, offset=offset, nbytes=nbytes, crc32=int(crc32, 16))
    raise _unknown(path)


def _unknown(path: Path) -> BrokenFile:
    return BrokenFile(
        what=f"`{path}` holds stamps in an unknown form",
        fix="remove it if another tool wrote it",
    )


def held_stamps(stamps: ManifestStamps) -> Mapping[str, object]:
    """Stamps as the manifest has them."""
    return {
        "values": dict(stamps.values),
        "samples": [vars(sample) | {"crc32": f"{sample.crc32:08x}"} for sample in stamps.samples],
    }

"""What both formats' folders have in common: side files, the manifest of an earlier conversion."""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING

from ropeconv.formats.checkpoint import Carried, KeptTensor, parse_object, read_text
from ropeconv.formats.safetensors import MAX_AXES, MAX_SIZE
from ropeconv.words.dtypes import DType
from ropeconv.words.errors import BrokenFile

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST = "ropeconv.json"
MANIFEST_SCHEMA = 1

WEIGHT_NAMES = re.compile(r".*\.(safetensors|pth|pt|bin|ckpt|gguf|h5|msgpack|onnx)(\.index\.json)?")
CONFIG_NAMES = {"config.json", "params.json", MANIFEST}
STALE_NAMES = {"checklist.chk": "its checksums are those of the source's files"}


def sort_side_files(root: Path, names: list[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Names to copy verbatim (tokenizers, licences, settings), and names left out, with reasons."""
    copied: list[str] = []
    left_out: list[tuple[str, str]] = []
    for name in names:
        if name in CONFIG_NAMES or name.startswith("."):
            continue
        if name in STALE_NAMES:
            left_out.append((name, STALE_NAMES[name]))
        elif WEIGHT_NAMES.fullmatch(name):
            left_out.append((name, "weights that do not belong to this checkpoint"))
        elif (root / name).is_dir():
            left_out.append((name, "a folder"))
        elif (root / name).is_file():
            if _leaves(root, name):
                left_out.append((name, "a link out of the folder"))
            else:
                copied.append(name)
        else:
            left_out.append((name, "no regular file"))
    return copied, left_out


def _leaves(root: Path, name: str) -> bool:
    """Whether a name is a link to a file that the folder's author need not have put there.

    A repository can link to a private file of whoever converts it, and the copy would be published.
    The Hugging Face cache is made of links into `blobs` beside its `snapshots`; those are its own.
    """
    path = (root / name).resolve()
    homes = [root.resolve()]
    if root.resolve().parent.name == "snapshots":
        homes.append(root.resolve().parent.parent / "blobs")
    return not any(path.is_relative_to(home) for home in homes)


def read_carried(root: Path) -> Carried:
    """What an earlier conversion kept for the way back; nothing if there was none."""
    path = root / MANIFEST
    if not path.is_file():
        return Carried()
    manifest = parse_object(read_text(path), str(path))
    match manifest:
        case {
            "schema": 1,
            "carried": {
                "config": str(config),
                "embedding_split": "" | "rows" | "columns" as split,
                "dropped": list(kept),
            },
        }:
            return Carried(
                config=config,
                embedding_split=split,
                dropped=tuple(_kept(entry, path) for entry in kept),
            )
        case _:
            raise BrokenFile(
                what=f"`{path}` is no manifest of this ropeconv",
                why=f"expected schema {MANIFEST_SCHEMA} with what was carried over",
                fix="remove it if another tool wrote it; the conversion works without it",
            )


def kept_entry(kept: KeptTensor) -> dict[str, object]:
    """A kept tensor as the manifest has it."""
    return {
        "name": kept.name,
        "dtype": kept.dtype.value,
        "shape": list(kept.shape),
        "data": base64.b64encode(kept.data).decode(),
    }


def _kept(entry: object, path: Path) -> KeptTensor:
    match entry:
        case {
            "name": str(name),
            "dtype": str(dtype),
            "shape": list(shape),
            "data": str(data),
        } if len(shape) <= MAX_AXES and all(type(s) is int and 0 <= s < MAX_SIZE for s in shape):
            pass
        case _:
            raise BrokenFile(what=f"`{path}` keeps a tensor in an unknown form")
    try:
        kept = KeptTensor(
            name=name,
            dtype=DType(dtype),
            shape=tuple(shape),
            data=base64.b64decode(data, validate=True),
        )
    except (ValueError, TypeError, binascii.Error) as error:
        raise BrokenFile(
            what=f"`{path}` keeps the tensor `{name[:120]}` in a broken form"
        ) from error
    elements = 1
    for size in kept.shape:
        elements *= size
    if len(kept.data) != elements * kept.dtype.nbytes:
        raise BrokenFile(what=f"`{path}` keeps the tensor `{name[:120]}` with bytes missing")
    return kept

"""Makes files that no honest program writes: pickles by opcode, zips and headers by hand."""

from __future__ import annotations

import json
import shutil
import struct
import zipfile
from pathlib import Path

from fixtures import make_small

PTH = "consolidated.00.pth"
DATA = bytes(range(48))  # one storage: 24 numbers of bfloat16


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def integer(value: int) -> bytes:
    data = value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def tuple_of(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"t"


def storage(key: str = "0", kind: str = "torch\nBFloat16Storage") -> bytes:
    parts = (text("storage"), f"c{kind}\n".encode(), text(key), text("cpu"), integer(24))
    return tuple_of(*parts) + b"Q"


def tensor(
    *,
    kept_in: bytes | None = None,
    offset: int = 0,
    shape: tuple[int, ...] = (4, 6),
    stride: tuple[int, ...] = (6, 1),
) -> bytes:
    """The pickle of one tensor, honest unless told otherwise."""
    arguments = (
        storage() if kept_in is None else kept_in,
        integer(offset),
        tuple_of(*map(integer, shape)),
        tuple_of(*map(integer, stride)),
        b"\x89ccollections\nOrderedDict\n)R",
    )
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + tuple_of(*arguments) + b"R"


def state_dict(*items: tuple[str, bytes]) -> bytes:
    return b"\x80\x02}(" + b"".join(text(name) + value for name, value in items) + b"u."


def entries(program: bytes) -> list[tuple[str, bytes]]:
    return [("a/data.pkl", program), ("a/byteorder", b"little"), ("a/data/0", DATA)]


def zip_file(
    path: Path, listed: list[tuple[str, bytes]], compress: int = zipfile.ZIP_STORED
) -> Path:
    with zipfile.ZipFile(path, "w", compress) as archive:
        for name, data in listed:
            archive.writestr(name, data)
    return path


def pth(folder: Path, program: bytes) -> Path:
    """A .pth whose pickle is that program."""
    return zip_file(folder / PTH, entries(program))


def safetensors(path: Path, header: object, data: bytes = b"") -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + data)
    return path


def copy_small(name: str, folder: Path) -> Path:
    """A small fixture to be spoilt."""
    return Path(shutil.copytree(make_small.FOLDER / name, folder / name))

"""PyTorch's zip files (`.pth`), read and written without torch and without running a pickle.

A file is a zip of stored entries under one root folder: `data.pkl` describes the tensors, `data/N`
holds the bytes of storage N. The description is a pickle program. It is not executed: a closed list
of opcodes is interpreted over plain values, and only the constructors of tensors are understood.
Anything else is refused by name, and there is no way to ask for less care.

Source:
    https://github.com/pytorch/pytorch/blob/v2.6.0/torch/serialization.py and torch/_utils.py
"""

from __future__ import annotations

import math
import pickletools
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ropeconv.formats.checkpoint import StoredTensor, look_at, reason
from ropeconv.words.dtypes import BY_TORCH_NAME, DType
from ropeconv.words.errors import BrokenFile, HostileFile, SourceError, Unsupported

if TYPE_CHECKING:
    from pathlib import Path

MAX_PICKLE_NBYTES = 64 * 10**6  # 405B in 16 ranks has 0.2 MB; 100 000 tensors have 20 MB
MAX_ENTRIES = 200_000
MAX_AXES = 64  # PyTorch's own limit
LOCAL_HEADER_NBYTES = 30

STORAGES = {
    "DoubleStorage": DType.F64,
    "FloatStorage": DType.F32,
    "HalfStorage": DType.F16,
    "BFloat16Storage": DType.BF16,
    "LongStorage": DType.I64,
    "IntStorage": DType.I32,
    "ShortStorage": DType.I16,
    "CharStorage": DType.I8,
    "ByteStorage": DType.U8,
    "BoolStorage": DType.BOOL,
}
STORAGE_NAMES = {dtype: name for name, dtype in STORAGES.items()}


@dataclass(frozen=True, kw_only=True)
class _Global:
    """A name that the pickle refers to; never imported."""

    name: str


@dataclass(frozen=True, kw_only=True)
class _Storage:
    key: str
    dtype: DType | None  # None: untyped, counted in bytes
    numel: int


@dataclass(frozen=True, kw_only=True)
class _Tensor:
    storage: _Storage
    dtype: DType
    offset: int  # in elements
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _Mark:
    """The pickle machine's mark."""


@dataclass(frozen=True, kw_only=True)
class _Entry:
    offset: int  # of the data, in the file
    nbytes: int


def read_tensors(root: Path, name: str, file: int, rank: int) -> tuple[StoredTensor, ...]:
    """Every tensor of one `.pth`, with the place of its bytes in the file.

    Raises:
        HostileFile: the pickle asks for something that no weights need.
        BrokenFile: the zip, or an extent in it, does not hold together.
        Unsupported: a legacy file, or tensors that are no plain contiguous ones.
    """
    path = root / name
    entries, prefix = _entries(path, look_at(root, name).nbytes)
    pickle = entries[prefix + "data.pkl"]
    if pickle.nbytes > MAX_PICKLE_NBYTES:
        raise HostileFile(what=f"`{path}` describes its tensors in {pickle.nbytes} bytes")
    with path.open("rb") as handle:
        handle.seek(pickle.offset)
        program = handle.read(pickle.nbytes)
        if prefix + "byteorder" in entries:
            order = entries[prefix + "byteorder"]
            handle.seek(order.offset)
            if handle.read(min(order.nbytes, 16)) != b"little":
                raise Unsupported(what=f"`{path}` is big-endian")
    found = _run(program, path)
    if isinstance(found, dict) and set(found) in ({"model"}, {"state_dict"}):
        (found,) = found.values()  # one wrapper in use around Meta's own names
    if not isinstance(found, dict):
        raise Unsupported(
            what=f"`{path}` holds a {type(found).__name__.strip('_').lower()}, expected a state"
            " dict"
        )
    return tuple(
        _place(path, key, value, entries, prefix, file, rank) for key, value in found.items()
    )


def read_record(root: Path, name: str, record: str) -> str | None:
    """A small text entry beside the tensors; None if there is none."""
    path = root / name
    entries, prefix = _entries(path, look_at(root, name).nbytes)
    entry = entries.get(prefix + record)
    if entry is None:
        return None
    with path.open("rb") as handle:
        handle.seek(entry.offset)
        return handle.read(min(entry.nbytes, 256)).decode("ascii", "replace")


def _entries(path: Path, size: int) -> tuple[dict[str, _Entry], str]:
    try:
        with path.open("rb") as handle:
            _check_magic(path, handle.read(64))
            with zipfile.ZipFile(handle) as archive:
                listed = archive.infolist()
            if len(listed) > MAX_ENTRIES:
                raise HostileFile(what=f"`{path}` has {len(listed)} entries, at most {MAX_ENTRIES}")
            entries: dict[str, _Entry] = {}
            for info in listed:
                if info.filename in entries:
                    raise BrokenFile(what=f"`{path}` has the entry `{info.filename[:80]}` twice")
                if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
                    raise Unsupported(
                        what=f"`{path}` has a compressed or encrypted entry `{info.filename[:80]}`",
                        why="PyTorch stores tensors as they are",
                    )
                handle.seek(info.header_offset)
                header = handle.read(LOCAL_HEADER_NBYTES)
                if len(header) < LOCAL_HEADER_NBYTES or header[:4] != b"PK\x03\x04":
                    raise BrokenFile(what=f"`{path}` has no entry where its directory says")
                skip = int.from_bytes(header[26:28], "little") + int.from_bytes(
                    header[28:30], "little"
                )
                offset = info.header_offset + LOCAL_HEADER_NBYTES + skip
                if offset + info.file_size > size or info.file_size != info.compress_size:
                    raise BrokenFile(
                        what=f"entry `{info.filename[:80]}` of `{path}` ends outside the file",
                        fix="the file is truncated; download it again",
                    )
                entries[info.filename] = _Entry(offset=offset, nbytes=info.file_size)
    except OSError as error:
        raise SourceError(what=f"cannot read `{path}`", why=reason(error)) from error
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError) as error:
        raise BrokenFile(
            what=f"`{path}` is no intact zip file",
            why=str(error)[:200].lower(),
            fix="the file is truncated or damaged; download it again",
        ) from error
    _check_apart(path, entries)
    prefixes = [key[: -len("data.pkl")] for key in entries if key.endswith("/data.pkl")]
    if len(prefixes) != 1:
        raise BrokenFile(what=f"`{path}` has {len(prefixes)} entries `data.pkl`, expected one")
    return entries, prefixes[0]


def _check_magic(path: Path, head: bytes) -> None:
    if head.startswith(b"PK\x03\x04"):
        return
    if head.lstrip()[:1] == b"<":
        raise BrokenFile(
            what=f"`{path}` is a web page, expected weights",
            why="a download without permission saves the login page",
            fix="download the file again, with access granted",
        )
    if head.startswith((b"\x80\x02", b"\x80\x04")):
        raise Unsupported(
            what=f"`{path}` is in PyTorch's format from before 1.6, which is a bare pickle",
            why="such a file can only be read by executing it",
            fix="load and save it once with a current torch.save, on a machine that may run it",
        )
    raise BrokenFile(what=f"`{path}` is no PyTorch file", why="it does not begin like a zip file")


def _check_apart(path: Path, entries: dict[str, _Entry]) -> None:
    position = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].offset, item[1].nbytes)):
        if entry.offset < position:
            raise BrokenFile(what=f"entry `{name[:80]}` of `{path}` overlaps the one before it")
        position = entry.offset + entry.nbytes


def _place(
    path: Path,
    key: object,
    value: object,
    entries: dict[str, _Entry],
    prefix: str,
    file: int,
    rank: int,
) -> StoredTensor:
    if not isinstance(key, str) or not isinstance(value, _Tensor):
        raise Unsupported(
            what=f"`{path}` holds a {type(value).__name__.strip('_').lower()} under"
            f" `{str(key)[:80]}`,"
            " expected tensors only",
            fix="save the state dict of the model alone",
        )
    entry = entries.get(f"{prefix}data/{value.storage.key}")
    if entry is None:
        raise BrokenFile(
            what=f"tensor `{key[:120]}` of `{path}` lies in a storage that is not there"
        )
    if not _is_contiguous(value.shape, value.stride):
        raise Unsupported(
            what=f"tensor `{key[:120]}` of `{path}` has strides {value.stride} for shape"
            f" {value.shape}",
            why="a transposed or sliced view was saved",
            fix="call .contiguous() on it before torch.save",
        )
    begin = value.offset * value.dtype.nbytes
    nbytes = math.prod(value.shape) * value.dtype.nbytes
    if begin < 0 or begin + nbytes > entry.nbytes:
        raise BrokenFile(
            what=f"tensor `{key[:120]}` of `{path}` reaches to byte {begin + nbytes} of a storage"
            " with"
            f" {entry.nbytes}",
        )
    return StoredTensor(
        name=key,
        dtype=value.dtype,
        shape=value.shape,
        file=file,
        offset=entry.offset + begin,
        rank=rank,
    )


def _is_contiguous(shape: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    if len(shape) != len(stride) or any(size < 0 for size in shape):
        return False
    expected = 1
    for size, step in zip(reversed(shape), reversed(stride), strict=True):
        if size not in (0, 1) and step != expected:
            return False
        expected *= max(size, 1)
    return True


def _run(program: bytes, path: Path) -> object:  # noqa: PLR0915 - one arm for each opcode
    """Interpret the closed list of opcodes over strings, numbers, tuples, dicts and tensors."""
    stack: list[object] = []
    memo: dict[int, object] = {}
    try:
        for opcode, argument, _ in pickletools.genops(program):
            match opcode.name:
                case "PROTO" | "FRAME":
                    pass
                case "MARK":
                    stack.append(_Mark())
                case "STOP":
                    return stack.pop()
                case "NONE":
                    stack.append(None)
                case "NEWTRUE":
                    stack.append(True)
                case "NEWFALSE":
                    stack.append(False)
                case (
                    "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT"
                    | "BINUNICODE" | "SHORT_BINUNICODE"
                ):  # fmt: skip
                    stack.append(argument)
                case "EMPTY_TUPLE":
                    stack.append(())
                case "EMPTY_DICT":
                    stack.append({})
                case "TUPLE1" | "TUPLE2" | "TUPLE3":
                    count = int(opcode.name[-1])
                    stack[-count:] = [tuple(stack[-count:])]
                case "TUPLE":
                    stack.append(tuple(_to_mark(stack)))
                case "BINPUT" | "LONG_BINPUT":
                    memo[_number(argument)] = stack[-1]
                case "MEMOIZE":
                    memo[len(memo)] = stack[-1]
                case "BINGET" | "LONG_BINGET":
                    stack.append(memo[_number(argument)])
                case "GLOBAL":
                    stack.append(_Global(name=str(argument).replace(" ", ".")))
                case "STACK_GLOBAL":
                    name, module = stack.pop(), stack.pop()
                    if not isinstance(name, str) or not isinstance(module, str):
                        raise HostileFile(what=f"the pickle of `{path}` names no function by text")
                    stack.append(_Global(name=f"{module}.{name}"))
                case "BINPERSID":
                    stack.append(_storage(stack.pop(), path))
                case "REDUCE":
                    arguments, callee = stack.pop(), stack.pop()
                    stack.append(_construct(callee, arguments, path))
                case "SETITEM":
                    value, key = stack.pop(), stack.pop()
                    _fill(stack[-1], [key, value], path)
                case "SETITEMS":
                    items = _to_mark(stack)
                    _fill(stack[-1], items, path)
                case "BUILD":
                    stack.pop()  # `_metadata` of a state dict: version numbers of modules
                    if not isinstance(stack[-1], dict):
                        raise HostileFile(
                            what=f"the pickle of `{path}` sets the state of an object"
                        )
                case other:
                    raise HostileFile(
                        what=f"the pickle of `{path}` uses the opcode `{other}`",
                        why="no state dict of tensors needs it",
                        fix="do not load this file with anything that executes pickles",
                    )
    except (ValueError, IndexError, KeyError, TypeError, StopIteration) as error:
        raise BrokenFile(what=f"the pickle of `{path}` is damaged", why=str(error)[:200]) from error
    raise BrokenFile(what=f"the pickle of `{path}` has no end")


def _number(argument: object) -> int:
    if not isinstance(argument, int):
        raise TypeError("a memo key is no number")
    return argument


def _to_mark(stack: list[object]) -> list[object]:
    # from the end: every item is then passed once, however many marks there are
    at = next(i for i in range(len(stack) - 1, -1, -1) if isinstance(stack[i], _Mark))
    items = stack[at + 1 :]
    del stack[at:]
    return items


def _fill(target: object, items: list[object], path: Path) -> None:
    if not isinstance(target, dict):
        raise BrokenFile(what=f"the pickle of `{path}` fills something that is no dict")
    for key, value in zip(items[::2], items[1::2], strict=True):
        # before it is hashed or printed: a nest of tuples would take for ever, or the C stack
        if not isinstance(key, str):
            raise Unsupported(
                what=f"`{path}` holds a dict with a {type(key).__name__.strip('_').lower()} as key,"
                " expected names of tensors",
                fix="save the state dict of the model alone",
            )
        if key in target:
            raise BrokenFile(what=f"`{path}` has the tensor `{key[:120]}` twice")
        target[key] = value


def _refused_global(name: str, path: Path) -> HostileFile:
    return HostileFile(
        what=f"the pickle of `{path}` asks for `{name[:120]}`",
        why="weights need tensors and dicts only; ropeconv never runs code from a checkpoint",
        fix="do not load this file with anything that executes pickles",
    )


def _storage(persistent_id: object, path: Path) -> _Storage:
    match persistent_id:
        case ("storage", _Global(name=name), str(key), str(), int(numel)):
            module, _, kind = name.rpartition(".")
        case _:
            raise BrokenFile(what=f"`{path}` refers to a storage in an unknown form")
    if module == "torch" and kind in STORAGES:
        return _Storage(key=key, dtype=STORAGES[kind], numel=numel)
    if name == "torch.storage.UntypedStorage":
        return _Storage(key=key, dtype=None, numel=numel)
    raise _refused_global(name, path)


def _construct(callee: object, arguments: object, path: Path) -> object:
    if not isinstance(callee, _Global):
        raise BrokenFile(what=f"the pickle of `{path}` calls something that is no function")
    match callee.name, arguments:
        case "collections.OrderedDict", ():
            return {}
        case "torch._utils._rebuild_parameter", (_Tensor() as tensor, _, _):
            return tensor
        case (
            "torch._utils._rebuild_tensor_v2",
            (
                _Storage(dtype=DType() as dtype) as storage,
                int(offset),
                tuple(shape),
                tuple(stride),
                *_,
            ),
        ):
            return _tensor(storage, dtype, offset, shape, stride, path)
        case (
            "torch._utils._rebuild_tensor_v3",
            (
                _Storage() as storage,
                int(offset),
                tuple(shape),
                tuple(stride),
                _,
                _,
                _Global(name=name),
                *_,
            ),
        ) if name.removeprefix("torch.") in BY_TORCH_NAME:
            dtype = BY_TORCH_NAME[name.removeprefix("torch.")]
            return _tensor(storage, dtype, offset, shape, stride, path)
        case _:
            raise _refused_global(callee.name, path)


def _tensor(
    storage: _Storage,
    dtype: DType,
    offset: int,
    shape: tuple[object, ...],
    stride: tuple[object, ...],
    path: Path,
) -> _Tensor:
    sizes = tuple(size for size in shape if type(size) is int)
    steps = tuple(step for step in stride if type(step) is int)
    if len(sizes) != len(shape) or len(steps) != len(stride):
        raise BrokenFile(what=f"`{path}` has a tensor whose shape is not made of integers")
    if max(len(sizes), len(steps)) > MAX_AXES:
        raise HostileFile(what=f"`{path}` has a tensor of {len(sizes)} axes, at most {MAX_AXES}")
    return _Tensor(storage=storage, dtype=dtype, offset=offset, shape=sizes, stride=steps)

"""The pickle inside PyTorch's files, which describes tensors: interpreted, never executed.

A pickle is a program. A closed list of its opcodes is interpreted over plain values, and only the
constructors of tensors are understood. Anything else is refused by name, and there is no way to ask
for less care.

Source:
    https://github.com/pytorch/pytorch/blob/v2.6.0/torch/serialization.py and torch/_utils.py
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ropeconv.words.dtypes import BY_TORCH_NAME, DType
from ropeconv.words.errors import BrokenFile, HostileFile, Unsupported

if TYPE_CHECKING:
    from pathlib import Path

MAX_AXES = 64  # PyTorch's own limit

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
class PickledStorage:
    """A storage that the pickle refers to."""

    key: str
    dtype: DType | None  # None: untyped, counted in bytes
    numel: int


@dataclass(frozen=True, kw_only=True)
class PickledTensor:
    """A tensor that the pickle describes; nothing of it is checked against its storage yet."""

    storage: PickledStorage
    dtype: DType
    offset: int  # in elements
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _Mark:
    """The pickle machine's mark."""


def interpret(program: bytes, path: Path) -> object:  # noqa: PLR0915 - one arm for each opcode
    """What the pickle describes, made of strings, numbers, tuples, dicts and `PickledTensor`.

    Args:
        program: the pickle.
        path: of its file, for errors.

    Raises:
        HostileFile: an opcode or a global that no weights need.
        BrokenFile: it does not hold together.
        Unsupported: a dict whose keys are no names.
    """
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


def kind_of(value: object) -> str:
    """What a value of a pickle is, for an error.

    >>> kind_of({}), kind_of(PickledStorage(key="0", dtype=None, numel=1))
    ('dict', 'storage')
    """
    return type(value).__name__.removeprefix("Pickled").strip("_").lower()


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
                what=f"`{path}` holds a dict with a {kind_of(key)} as key,"
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


def _storage(persistent_id: object, path: Path) -> PickledStorage:
    match persistent_id:
        case ("storage", _Global(name=name), str(key), str(), int(numel)):
            module, _, kind = name.rpartition(".")
        case _:
            raise BrokenFile(what=f"`{path}` refers to a storage in an unknown form")
    if module == "torch" and kind in STORAGES:
        return PickledStorage(key=key, dtype=STORAGES[kind], numel=numel)
    if name == "torch.storage.UntypedStorage":
        return PickledStorage(key=key, dtype=None, numel=numel)
    raise _refused_global(name, path)


def _construct(callee: object, arguments: object, path: Path) -> object:
    if not isinstance(callee, _Global):
        raise BrokenFile(what=f"the pickle of `{path}` calls something that is no function")
    match callee.name, arguments:
        case "collections.OrderedDict", ():
            return {}
        case "torch._utils._rebuild_parameter", (PickledTensor() as tensor, _, _):
            return tensor
        case (
            "torch._utils._rebuild_tensor_v2",
            (
                PickledStorage(dtype=DType() as dtype) as storage,
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
                PickledStorage() as storage,
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
    storage: PickledStorage,
    dtype: DType,
    offset: int,
    shape: tuple[object, ...],
    stride: tuple[object, ...],
    path: Path,
) -> PickledTensor:
    sizes = tuple(size for size in shape if type(size) is int)
    steps = tuple(step for step in stride if type(step) is int)
    if len(sizes) != len(shape) or len(steps) != len(stride):
        raise BrokenFile(what=f"`{path}` has a tensor whose shape is not made of integers")
    if max(len(sizes), len(steps)) > MAX_AXES:
        raise HostileFile(what=f"`{path}` has a tensor of {len(sizes)} axes, at most {MAX_AXES}")
    return PickledTensor(storage=storage, dtype=dtype, offset=offset, shape=sizes, stride=steps)

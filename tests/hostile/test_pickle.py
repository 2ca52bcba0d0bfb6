"""Pickles that ask for more than tensors: refused by name, quickly, and never executed."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from forge import PTH, integer, pth, state_dict, storage, tensor, text, tuple_of

from ropeconv.formats.torch_zip import read_tensors
from ropeconv.words.errors import BrokenFile, HostileFile, RopeconvError, Unsupported

LONGEST_TEXT = 1000  # characters of a message; it must not echo a file


def refusal(folder: Path, program: bytes) -> RopeconvError:
    pth(folder, program)
    with pytest.raises(RopeconvError) as caught:
        read_tensors(folder, PTH, 0, 0)

    assert len(str(caught.value)) < LONGEST_TEXT
    return caught.value


def test_honest_pickle_of_this_forge_is_read(tmp_path: Path) -> None:
    """The control: the forgeries below fail for what they ask, not for how they are made."""
    pth(tmp_path, state_dict(("w", tensor())))
    (found,) = read_tensors(tmp_path, PTH, 0, 0)

    assert (found.name, found.shape, found.nbytes) == ("w", (4, 6), 48)


class Shell:
    """Pickles as a call of os.system."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os  # noqa: PLC0415 - what is called when it is unpickled

        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", range(6))
def test_pickle_that_calls_a_shell_is_refused_and_not_run(tmp_path: Path, protocol: int) -> None:
    trace = tmp_path / "trace"
    program = pickle.dumps({"w": Shell(f"touch {trace}")}, protocol)
    error = refusal(tmp_path, program)

    assert error.code == "file-refused"
    assert not trace.exists()
    pickle.loads(program)
    assert trace.exists(), "the control: this pickle does run something when it is executed"


@pytest.mark.parametrize(
    "name",
    ["posix system", "builtins eval", "builtins getattr", "torch load",
     "torch.storage _load_from_bytes",
     "torch.serialization load",
     "numpy.core.multiarray _reconstruct", "collections OrderedDict.update",
     "torch._utils _rebuild_tensor", "torch.hub load", "torch BFloat16Storage", "no.such.module x"],
)  # fmt: skip
def test_pickle_that_calls_another_name_is_refused_by_that_name(tmp_path: Path, name: str) -> None:
    called = b"c" + name.replace(" ", "\n").encode() + b"\n" + tuple_of(text("x")) + b"R"
    error = refusal(tmp_path, state_dict(("w", called)))

    assert isinstance(error, HostileFile)
    assert f"`{name.replace(' ', '.')}`" in error.what


def test_pickle_that_calls_by_stack_global_is_refused_by_that_name(tmp_path: Path) -> None:
    called = text("posix") + text("system") + b"\x93" + tuple_of(text("true")) + b"R"
    error = refusal(tmp_path, state_dict(("w", called)))

    assert isinstance(error, HostileFile)
    assert "`posix.system`" in error.what


@pytest.mark.parametrize(
    ("opcode", "program"),
    [
        ("INST", b"(X\x04\x00\x00\x00trueiposix\nsystem\n."),
        ("OBJ", b"(cposix\nsystem\nX\x04\x00\x00\x00trueo."),
        ("NEWOBJ", b"cbuiltins\nobject\n)\x81."),
        ("NEWOBJ_EX", b"cbuiltins\nobject\n)}\x92."),
        ("EXT1", b"\x82\x01."),
        ("EXT2", b"\x83\x01\x00."),
        ("EXT4", b"\x84\x01\x00\x00\x00."),
        ("PERSID", b"Pfile:///etc/hostname\n."),
        ("EMPTY_LIST", b"](K\x01e."),
        ("LIST", b"(l."),
        ("DICT", b"(d."),
        ("EMPTY_SET", b"\x8f."),
        ("FROZENSET", b"(\x91."),
        ("INT", b"I1\n."),
        ("LONG", b"L1L\n."),
        ("LONG4", b"\x8b\x01\x00\x00\x00\x01."),
        ("STRING", b"S'x'\n."),
        ("UNICODE", b"Vx\n."),
        ("BINUNICODE8", b"\x8d\x01\x00\x00\x00\x00\x00\x00\x00x."),
        ("BINBYTES", b"B\x01\x00\x00\x00x."),
        ("BYTEARRAY8", b"\x96\x01\x00\x00\x00\x00\x00\x00\x00x."),
        ("NEXT_BUFFER", b"\x97."),
        ("DUP", b"N2."),
        ("POP", b"N0."),
    ],
)
def test_pickle_with_an_opcode_that_no_weights_need_is_refused_by_name(
    tmp_path: Path, opcode: str, program: bytes
) -> None:
    error = refusal(tmp_path, b"\x80\x04" + program)

    assert isinstance(error, HostileFile)
    assert f"`{opcode}`" in error.what


def test_pickle_that_sets_the_state_of_a_tensor_is_refused(tmp_path: Path) -> None:
    error = refusal(tmp_path, state_dict(("w", tensor() + b"}b")))

    assert isinstance(error, HostileFile)


DEEP = b")" + b"\x85" * 100_000  # (((...))) - its hash would overflow the C stack
WIDE = b")q\x00" + b"".join(b"h%c" % n + b"h%c\x86q%c" % (n, n + 1) for n in range(100))
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
# WIDE is a pair of a pair ..., one hundred deep and shared: its text has 2^100 characters


@pytest.mark.parametrize("bomb", [DEEP, WIDE], ids=["deep", "wide"])
@pytest.mark.parametrize("role", ["key", "value", "module", "callee", "storage", "shape", "dict"])
def test_pickle_bomb_in_any_role_is_refused_quickly(tmp_path: Path, bomb: bytes, role: str) -> None:
    """Hashing or printing the value would take for ever, or crash: it must only be dropped."""
    program = {
        "key": b"}(" + bomb + tensor() + b"u.",
        "value": state_dict(("w", bomb)),
        "module": b"}" + bomb + text("x") + b"\x93)R.",
        "callee": bomb + b")R.",
        "storage": bomb + b"Q.",
        "shape": state_dict(("w", REBUILD + tuple_of(storage(), integer(0), bomb, bomb) + b"R")),
        "dict": bomb + b".",
    }[role]  # fmt: skip
    refusal(tmp_path, b"\x80\x04" + program.removeprefix(b"\x80\x02"))


def test_pickle_of_many_marks_is_read_in_linear_time(tmp_path: Path) -> None:
    """Each tuple looks for its mark: from the wrong end that is quadratic."""
    refusal(tmp_path, b"\x80\x02" + b"N" * 60_000 + b"(t" * 60_000 + b".")


@pytest.mark.parametrize(
    ("why", "program"),
    [
        ("empty", b""),
        ("no end", b"\x80\x02}"),
        ("nothing on the stack", b"\x80\x02."),
        ("no mark", b"\x80\x02}N(u."),
        ("tuple without mark", b"\x80\x02NNt."),
        ("odd number of items", b"\x80\x02}(Nu."),
        ("unknown memo", b"\x80\x02h\x07."),
        ("items into a tuple", b"\x80\x02)(X\x01\x00\x00\x00aNu."),
        ("call of a number", b"\x80\x02K\x01)R."),
        ("unknown opcode", b"\x80\x02\xff."),
        ("string longer than the file", b"\x80\x02X\xff\xff\xff\x7fa."),
        ("no UTF-8", b"\x80\x02X\x01\x00\x00\x00\xff."),
        ("reduce on nothing", b"\x80\x02R."),
        ("storage of nothing", b"\x80\x02Q."),
        ("storage that is a number", b"\x80\x02K\x01Q."),
    ],
)
def test_pickle_that_is_damaged_is_said_to_be(tmp_path: Path, why: str, program: bytes) -> None:
    error = refusal(tmp_path, program)

    assert isinstance(error, BrokenFile), (why, error)


@pytest.mark.parametrize(
    ("why", "value"),
    [
        ("beyond its storage", tensor(offset=1)),
        ("far beyond its storage", tensor(offset=2**62)),
        ("before its storage", tensor(offset=-1)),
        ("more elements than there are", tensor(shape=(5, 6))),
        ("absurd sizes", tensor(shape=(2**62, 2**62), stride=(2**62, 1))),
        ("many axes", tensor(shape=(2**60,) * 5000, stride=(1,) * 5000)),
        ("many axes of one", tensor(shape=(1,) * 5000, stride=(1,) * 5000)),
        ("negative size", tensor(shape=(-4, -6))),
        ("transposed", tensor(stride=(1, 4))),
        ("strides of another shape", tensor(stride=(1,))),
        ("storage that is not there", tensor(kept_in=storage("7"))),
        ("storage by path", tensor(kept_in=storage("../data.pkl"))),
        ("storage of no kind", tensor(kept_in=storage(kind="torch\nComplexFloatStorage"))),
        ("storage from elsewhere", tensor(kept_in=storage(kind="posix\nBFloat16Storage"))),
        ("number instead of a tensor", integer(3)),
        ("dict instead of a tensor", b"}"),
    ],
)
def test_tensor_whose_extent_is_not_its_own_is_refused(
    tmp_path: Path, why: str, value: bytes
) -> None:
    error = refusal(tmp_path, state_dict(("w", value)))

    assert isinstance(error, BrokenFile | Unsupported | HostileFile), (why, error)


def test_two_tensors_of_one_name_are_refused(tmp_path: Path) -> None:
    error = refusal(tmp_path, state_dict(("w", tensor()), ("w", tensor())))

    assert error.what.endswith("has the tensor `w` twice")


def test_key_that_is_no_string_is_refused(tmp_path: Path) -> None:
    refusal(tmp_path, b"\x80\x02}(K\x07" + tensor() + b"u.")


def test_name_of_a_million_letters_does_not_fill_the_message(tmp_path: Path) -> None:
    refusal(tmp_path, state_dict(("w" * 10**6, tensor(offset=99))))
    refusal(tmp_path, b"\x80\x02c" + b"m" * 10**6 + b"\nx\n)R.")

"""How the command speaks: its help, its errors, its notes, to whom, and in what colour."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from ropeconv.cli.main import main
from ropeconv.cli.speech import Speech, speaking
from tests.cli.test_command import FROZEN, PLAIN, json_lines
from tests.conftest import SMALL

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Said:
    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Said]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command in this process, which is quicker than one of its own."""

    def run(*words: object, **surroundings: str) -> Said:
        for name, value in (PLAIN | surroundings).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["ropeconv", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Said(returncode=ended.value.code, stdout=out, stderr=err)

    return run


@pytest.mark.parametrize("name", FROZEN)
def test_every_option_is_written_out_at_80_columns(run: Run, name: str) -> None:
    text = run(*name.split(), "--help", COLUMNS="80").stdout
    shown = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", text))
    names = {part for option in FROZEN[name] for part in option.split("/")}

    assert names - shown == set()
    assert max(map(len, text.splitlines())) <= 80
    assert not re.search(r"\.\.\.$|bool|<int", text, re.MULTILINE)


def test_help_is_as_wide_as_the_terminal_up_to_100() -> None:
    main_end, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 120, 0, 0))
    subprocess.run(
        [sys.executable, "-m", "ropeconv", "convert", "meta-to-hf", "--help"],
        stdout=terminal, stderr=terminal, check=True, cwd=ROOT, timeout=60,
        env={name: value for name, value in os.environ.items() if name != "COLUMNS"},
    )  # fmt: skip
    os.close(terminal)
    text = b""
    with contextlib.suppress(OSError):  # the end, where nobody holds the terminal any more
        while part := os.read(main_end, 65536):
            text += part
    os.close(main_end)

    assert 80 < max(map(len, text.decode().splitlines())) <= 100


WRONG = [
    (["convert", "meta-to-hf", "a", "b", "--them", "3"], "there is no option `--them`"),
    (["convert", "meta-to-hf", "a"], "missing argument `DST`"),
    (["convert", "hf-to-meta", "a", "b", "--mp", "x"], "invalid value for `--mp`: "),
    (["convert", "hf-to-meta", "a", "b", "--io", "x"], "invalid value for `--io`: `x` is not one"),
    (["verify", "checkpoint", "a"], "missing option `--against`"),
    (["verify", "checkpoint", "a", "--against"], "option `--against` requires an argument"),
    (["families", "a", "b"], "unexpected extra argument"),
    (["convrt"], "no such command `convrt`"),
]


@pytest.mark.parametrize(("words", "what"), WRONG)
def test_wrong_usage_is_an_error_like_any_other(run: Run, words: list[str], what: str) -> None:
    done = run(*words)
    # in front of an option that waits for a value, and where no command has it
    as_json = run(*words[:2], "--json", *words[2:])
    (line,) = json_lines(as_json.stdout)

    assert (done.returncode, done.stdout, as_json.returncode, as_json.stderr) == (2, "", 2, "")
    assert re.match(r"error: [^A-Z]", done.stderr), done.stderr
    assert what in done.stderr
    assert re.search(
        r"^fix:   .*`ropeconv .*--help` lists what there is$", done.stderr, re.MULTILINE
    )
    assert (line["type"], line["code"], line["exit_code"]) == ("error", "usage", 2)
    assert what in line["what"] or "--json" in line["what"]


def test_option_that_is_misspelled_is_named(run: Run) -> None:
    assert "did you mean `--theta`?" in run("convert", "meta-to-hf", "a", "b", "--them", "3").stderr
    assert "did you mean `convert`?" in run("convrt").stderr


@pytest.mark.parametrize("words", [[], ["convert"], ["verify"]])
def test_group_without_a_command_shows_what_there_is_as_wrong_usage(
    run: Run, words: list[str]
) -> None:
    done = run(*words)

    assert (done.returncode, done.stderr) == (2, "")
    assert done.stdout == run(*words, "--help").stdout


@pytest.mark.parametrize(
    "words", ["--help", "--version", "convert", "convert meta-to-hf --help", "families", "nope"]
)
def test_reader_that_leaves_is_told_nothing_and_changes_no_exit_code(words: str) -> None:
    """Text beyond the pipe's buffer, and a reader that closed before the first byte."""
    script = f'exec 3>&1; {{ "{sys.executable}" -m ropeconv {words}; echo $? >&3; }} 2>&1 | :'
    found = subprocess.run(
        ["bash", "-c", f"{script}; wait"],
        capture_output=True, text=True, check=False, cwd=ROOT, timeout=60,
    )  # fmt: skip

    assert found.stdout.strip() == ("2" if words in {"convert", "nope"} else "0")
    assert found.stderr == ""


def test_closed_stdout_is_no_bug() -> None:
    script = f'"{sys.executable}" -m ropeconv inspect --no-look {SMALL / "llama"} >&-'
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=False, cwd=ROOT
    )

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no disk that is full")
@pytest.mark.parametrize("words", ["--help", "inspect --no-look {source}"])
def test_stdout_on_a_full_disk_is_said(words: str) -> None:
    script = f'"{sys.executable}" -m ropeconv {words.format(source=SMALL / "llama")} >/dev/full'
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=False, cwd=ROOT,
        env=os.environ | {"PYTHONUNBUFFERED": ""},
    )  # fmt: skip

    assert done.returncode == 6
    assert "error: cannot write the result to stdout" in done.stderr
    assert "no space left on device" in done.stderr
    assert "Exception ignored" not in done.stderr


def test_what_is_copied_along_is_said_and_a_dry_run_lists_all_files(
    run: Run, tmp_path: Path
) -> None:
    source = shutil.copytree(SMALL / "llama", tmp_path / "source")
    (source / "README.md").write_text("the weights are in Meta's form")
    words = ("convert", "meta-to-hf", source, tmp_path / "out", "--hash", "--report")
    planned = run(*words, tmp_path / "planned.json", "--dry-run")
    done = run(*words, tmp_path / "done.json")
    plan, result = (
        json.loads((tmp_path / name).read_text()) for name in ("planned.json", "done.json")
    )
    on_disk = {path.name: path.stat().st_size for path in (tmp_path / "out").iterdir()}

    assert {file["name"]: file["nbytes"] for file in plan["files"]} == on_disk
    assert plan["files"] == result["files"]
    assert plan["copied"] == result["copied"] == ["README.md"]
    assert planned.stdout.count("ropeconv.json") == 1
    for said in (planned.stderr, done.stderr):
        assert "copied: `README.md`, unchanged, even where they describe the source's form" in said


def test_markdown_of_a_dry_run_says_what_would_be(run: Run, tmp_path: Path) -> None:
    words = ("convert", "meta-to-hf", SMALL / "llama", tmp_path / "out", "-q", "--report")
    run(*words, tmp_path / "planned.md", "--dry-run")
    run(*words, tmp_path / "done.md")
    planned, done = ((tmp_path / name).read_text() for name in ("planned.md", "done.md"))

    assert "| would be written | " in planned
    assert "| memory | at most " in planned
    assert "that are free |" in planned
    assert not re.search(r"\| written|were reordered", planned)
    assert "| written | " in done
    assert "| memory |" not in done
    assert re.search(r"written \| [\d.]+ KB in 3 files", planned), "config, weights and manifest"


def test_name_of_a_stranger_cannot_move_the_cursor(run: Run, tmp_path: Path) -> None:
    """A terminal obeys an escape in a file's name: clear the screen, write `verdict same`."""
    source = shutil.copytree(SMALL / "llama", tmp_path / "source")
    (source / "notes\x1b[2J\x1b[31m.txt").write_text("x")
    words = ("convert", "meta-to-hf", source, tmp_path / "out", "--dry-run")
    done = run(*words, NO_COLOR="", FORCE_COLOR="1", TERM="xterm-256color")

    assert r"notes\x1b[2J\x1b[31m.txt" in done.stdout
    assert r"notes\x1b[2J" in done.stderr
    assert "\x1b[2mcopied:\x1b[0m" in done.stderr, "the control: our own colours are there"
    assert "\x1b[2J" not in done.stdout + done.stderr


def test_columns_of_a_table_in_a_pipe_are_not_cut(run: Run) -> None:
    """`ropeconv families | grep` must see each family on a line of its own, whatever its width."""
    narrow, wide = (run("families", COLUMNS=columns).stdout for columns in ("40", "300"))

    assert narrow == wide
    assert re.search(r"^llama +Llama.* +half-split +\S", narrow, re.MULTILINE)


def test_debug_keeps_words_and_exit_code(run: Run, tmp_path: Path) -> None:
    done = run("convert", "meta-to-hf", tmp_path / "nothing", tmp_path / "out", "--debug")

    assert done.returncode == 4
    assert "Traceback" in done.stderr
    assert "error: " in done.stderr


def test_bug_is_said_as_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped, speaking(Speech()):
        raise ZeroDivisionError("division by zero")

    assert stopped.value.code == 70
    assert "error: a bug in ropeconv: ZeroDivisionError" in capsys.readouterr().err

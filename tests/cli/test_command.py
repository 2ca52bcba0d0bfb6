"""The command in a real process: what it exits with, what it says, and on which stream."""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import typing
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import typer

from ropeconv.cli import app as command
from ropeconv.version import __version__
from tests.conftest import SMALL

ROOT = Path(__file__).parents[2]
PLAIN = {"NO_COLOR": "1", "COLUMNS": "200", "TERM": "dumb"}


def run(*words: object, **surroundings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ropeconv", *map(str, words)],
        capture_output=True, text=True, check=False, cwd=ROOT, timeout=120,
        env=os.environ | PLAIN | surroundings,
    )  # fmt: skip


def json_lines(text: str) -> list[dict[str, typing.Any]]:
    return [json.loads(line) for line in text.splitlines()]


def no_traceback(done: subprocess.CompletedProcess[str]) -> bool:
    return "Traceback" not in done.stdout + done.stderr


def test_conversion_says_its_result_on_stdout_and_all_else_on_stderr(tmp_path: Path) -> None:
    target = tmp_path / "out"
    done = run("convert", "meta-to-hf", SMALL / "llama-first-generation", target)

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"converted {SMALL / 'llama-first-generation'} to {target}: ")
    assert len(done.stdout.splitlines()) == 1
    assert "inferred: theta is 10000" in done.stderr
    assert "dropped: `rope.freqs`" in done.stderr
    assert f"ropeconv verify checkpoint {target} --against" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr


def test_quiet_json_with_a_report_prints_one_line_and_writes_the_same(tmp_path: Path) -> None:
    words = ("convert", "meta-to-hf", SMALL / "llama", tmp_path / "out", "--json", "-q")
    done = run(*words, "--report", tmp_path / "report.json")
    (line,) = json_lines(done.stdout)

    assert (done.returncode, done.stderr) == (0, "")
    assert (line["type"], line["done"], line["reordered_tensors"]) == ("conversion", True, 4)
    assert line["ropeconv"] == __version__
    assert json.loads((tmp_path / "report.json").read_text())["type"] == "conversion"


def test_verify_proves_and_exits_0(converted: Callable[[str], Path]) -> None:
    done = run(
        "verify", "checkpoint", converted("llama"), "--against", SMALL / "llama", "--sample", "1"
    )

    assert done.returncode == 0, done.stderr
    assert re.search(r"^verdict +the same model", done.stdout, re.MULTILINE), done.stdout


def test_verify_of_another_model_exits_1(tmp_path: Path) -> None:
    words = ("verify", "checkpoint", SMALL / "llama-tied", "--against", SMALL / "llama")
    done = run(*words, "--json", "--sample", "1", "--rope-factor", "32")

    assert done.returncode == 5, "a factor for a source that is not scaled is a contradiction"
    other = shutil.copytree(SMALL / "llama", tmp_path / "other")
    tensors = torch.load(other / "consolidated.00.pth", weights_only=True)
    tensors["norm.weight"][3] += 1
    torch.save(tensors, other / "consolidated.00.pth")
    done = run(
        "verify", "checkpoint", other, "--against", SMALL / "llama", "--json", "--sample", "1"
    )
    (line,) = json_lines(done.stdout)

    assert done.returncode == line["exit_code"] == 1
    assert (line["type"], line["outcome"]) == ("verdict", "different")
    assert [finding["tensor"] for finding in line["exact"]["findings"]] == ["model.norm.weight"]


def test_verify_without_power_exits_3(converted: Callable[[str], Path]) -> None:
    source = SMALL / "llama-odd-bits"
    done = run("verify", "checkpoint", converted("llama-odd-bits"), "--against", source)

    assert done.returncode == 3
    assert "inconclusive" in done.stdout.splitlines()[-1]
    assert "the source's projections hold NaN or infinity" in done.stdout
    assert not re.search(r"\b(inf|nan)\b", done.stdout), done.stdout


REFUSALS = [
    (2, "usage", ["--max-shard-size", "many"], "llama", "`many` is no size"),
    (2, "usage", ["--theta", "0"], "llama-first-generation", "--theta 0 cannot be"),
    (2, "usage", ["--report", "{out}/r.doc"], "llama", "ends in `.doc`"),
    (4, "not-a-checkpoint", [], "nothing", "does not exist"),
    (5, "not-said", [], "llama-tied", "not by which factor"),
    (6, "target-exists", [], "llama", "exists already"),
]


@pytest.mark.parametrize(("exit_code", "code", "options", "name", "words"), REFUSALS)
def test_error_has_its_exit_code_its_words_and_a_line_of_json(
    tmp_path: Path, exit_code: int, code: str, options: list[str], name: str, words: str
) -> None:
    target = tmp_path / "out"
    if code == "target-exists":
        target.mkdir()
        (target / "mine").touch()
    options = [option.format(out=tmp_path) for option in options]
    done = run("convert", "meta-to-hf", SMALL / name, target, *options)
    as_json = run("convert", "meta-to-hf", SMALL / name, target, *options, "--json")
    (line,) = json_lines(as_json.stdout)

    assert (done.returncode, done.stdout, as_json.stderr) == (exit_code, "", "")
    assert re.match(r"error: [^A-Z]", done.stderr), done.stderr
    assert words in done.stderr
    assert not re.search(r"\.$", done.stderr, re.MULTILINE), "no full stop"
    assert (line["type"], line["code"], line["exit_code"]) == ("error", code, exit_code)
    assert no_traceback(done)
    assert target.exists() is (code == "target-exists")


def test_error_is_what_why_and_fix_to_the_letter(tmp_path: Path) -> None:
    done = run("convert", "meta-to-hf", SMALL / "llama-tied", tmp_path / "out")
    origin = SMALL / "llama-tied" / "params.json"

    assert done.stderr.splitlines() == [
        f"error: `{origin}` says that RoPE is scaled, not by which factor",
        (
            "why:   8 (Llama 3.1, 3.3) and 32 (3.2 1B and 3B) differ in the slow half of the"
            " frequencies, which no short test shows"
        ),
        "fix:   pass --rope-factor 8 or --rope-factor 32",
    ]


@pytest.mark.parametrize(
    "words",
    [
        ["convert", "meta-to-hf"],
        ["convert", "sideways", "a", "b"],
        ["inspect", "a", "--nope"],
        ["verify", "checkpoint", "a"],
    ],
)
def test_wrong_usage_exits_2(words: list[str]) -> None:
    done = run(*words)

    assert done.returncode == 2
    assert no_traceback(done)


def piped(words: str) -> subprocess.CompletedProcess[str]:
    """The command with a reader that leaves at once; its exit code is what is printed."""
    script = f'"{sys.executable}" -m ropeconv {words} | head -c 0; echo ${{PIPESTATUS[0]}}'
    return subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=False, cwd=ROOT, timeout=60
    )


def test_result_piped_to_a_reader_that_left_does_not_fail() -> None:
    """`ropeconv inspect ... | head -0`: nobody is there to be told."""
    done = piped(f"inspect {SMALL / 'llama'}")

    assert no_traceback(done)
    assert "Exception ignored" not in done.stderr
    assert done.stdout.strip() == "0"


@pytest.mark.parametrize("form", ["", "--json"])
def test_verdict_piped_to_a_reader_that_left_is_still_told_by_the_exit_code(
    converted: Callable[[str], Path], form: str
) -> None:
    """A release gate with `| head` must neither pass another model nor fail for the pipe."""
    source = SMALL / "llama-odd-bits"
    done = piped(f"verify checkpoint {converted('llama-odd-bits')} --against {source} {form}")

    assert done.stdout.strip() == "3"
    assert no_traceback(done)
    assert "Exception ignored" not in done.stderr


def test_colour_is_only_for_those_who_did_not_say_no(tmp_path: Path) -> None:
    words = ("convert", "meta-to-hf", SMALL / "nothing", tmp_path / "out")
    forced = run(*words, FORCE_COLOR="1", NO_COLOR="", TERM="xterm-256color")

    assert "\x1b[" in forced.stderr, "the control"
    assert "\x1b" not in run(*words, TERM="xterm-256color").stderr


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = run("convert", "meta-to-hf", SMALL / "nothing", tmp_path / "out", "--debug")

    assert "Traceback" in done.stderr
    assert "NotACheckpoint" in done.stderr


def test_name_that_is_no_utf8_is_shown_somehow(tmp_path: Path) -> None:
    """Linux allows any bytes in a name; a result must not die of them when all is done."""
    source = tmp_path / "meta"
    shutil.copytree(SMALL / "llama", source)
    Path(os.fsdecode(os.fsencode(source) + b"/notes-\xff.txt")).write_text("x")
    done = run("convert", "meta-to-hf", source, os.fsdecode(os.fsencode(tmp_path) + b"/out-\xff"))

    assert done.returncode == 0, done.stderr
    assert run("convert", "meta-to-hf", source, tmp_path / "o", "--dry-run").returncode == 0


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_printed_for_a_shell(shell: str) -> None:
    done = run("--show-completion", shell) if shell == "bash" else run(
        "--show-completion", shell, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1"
    )  # fmt: skip

    assert done.returncode in {0, 2}
    assert no_traceback(done)


def test_version_is_printed() -> None:
    assert run("--version").stdout == f"ropeconv {__version__}\n"


def test_same_bytes_come_out_whatever_the_hash_seed(
    tmp_path: Path, converted: Callable[[str], Path]
) -> None:
    def contents(folder: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    for seed in ("1", "4242"):
        run("convert", "meta-to-hf", SMALL / "llama", tmp_path / seed, "-q", PYTHONHASHSEED=seed)

        assert contents(tmp_path / seed) == contents(converted("llama"))


def commands(app: typer.Typer, path: str = "") -> Iterator[tuple[str, Callable[..., object]]]:
    for group in app.registered_groups:
        assert group.typer_instance is not None
        yield from commands(group.typer_instance, f"{path}{group.name} ")
    for registered in app.registered_commands:
        assert registered.callback is not None
        yield f"{path}{registered.name}", registered.callback


def options_of(callback: Callable[..., object]) -> set[str]:
    hints = typing.get_type_hints(callback, include_extras=True)
    found: set[str] = set()
    for name in inspect.signature(callback).parameters:
        for extra in getattr(hints[name], "__metadata__", ()):
            if isinstance(extra, typer.models.OptionInfo):
                spelled = [extra.default, *(extra.param_decls or ())]
                found.update(word for word in spelled if isinstance(word, str))
    return found


RUN = {
    "--trust-declared-layout", "--dry-run", "--overwrite", "--restart", "--hash/--no-hash",
    "--jobs", "--io", "--sync/--no-sync",
}  # fmt: skip
SPEECH = {"--json", "--report", "--quiet", "-q", "--debug", "--no-color"}
SAID = {"--theta", "--rope-factor", "--context-length"}
FROZEN = {
    "convert meta-to-hf": SPEECH | RUN | SAID | {"--max-shard-size", "--allow-replica-drift"},
    "convert hf-to-meta": SPEECH | RUN | {"--mp", "--weights", "--rope-freqs/--no-rope-freqs"},
    "convert interleaved-to-half": SPEECH | RUN | {"--in-place", "--part", "--family"},
    "convert half-to-interleaved": SPEECH | RUN | {"--in-place", "--part", "--family"},
    "verify checkpoint": SPEECH | SAID | {"--against", "--jobs", "--layers", "--sample", "--logits",
                                          "--text", "--trust-declared-layout", "--family"},
    "verify kernel": SPEECH,
    "inspect": SPEECH | {"--look/--no-look", "--family"},
    "families": SPEECH | {"--probe"},
}  # fmt: skip


def test_commands_and_options_are_frozen() -> None:
    """Pipelines depend on them: one that goes, or is renamed, breaks somebody's release."""
    found = {name: options_of(callback) for name, callback in commands(command.app)}

    assert {name: FROZEN[name] - found.get(name, set()) for name in FROZEN} == {
        name: set() for name in FROZEN
    }
    assert {name: found[name] - FROZEN[name] for name in FROZEN} == {name: set() for name in FROZEN}
    assert set(FROZEN) <= set(found)


@pytest.mark.parametrize("name", ["", "convert", "verify", *FROZEN])
def test_help_of_every_command_is_there_with_its_exit_codes(name: str) -> None:
    done = run(*name.split(), "--help")
    short = run(*name.split(), "-h") if not name else done
    text = re.sub(r"\s+", " ", done.stdout)

    assert (done.returncode, short.returncode) == (0, 0)
    assert f"Usage: ropeconv {name}".rstrip() in text.replace("python -m ropeconv", "ropeconv")
    if name in FROZEN:
        assert "Exit codes: 0 " in text
        assert re.search(r"Exit codes: .*5 ", text), "the list is cut"

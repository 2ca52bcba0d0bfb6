"""The shape of the code: imports go down, start-up is light, and no sentence is cut in half."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from inspect import signature
from pathlib import Path

import pytest

import ropeconv
from fixtures import make_small
from ropeconv.cli.wording import OPTIONS, as_options
from tests.cli.test_command import FROZEN

PACKAGE = Path(ropeconv.__file__).parent
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
}

# Each floor, and the floors below it that it may use.
WORDS = {"words"}
FORMATS = WORDS | {"formats"}
THINKING = FORMATS | {"knowledge", "thinking"}
MOVING = THINKING | {"moving"}
PROOF = MOVING | {"kernels", "proof"}
STORY = PROOF | {"story"}
FLOORS = {
    "words": WORDS,
    "knowledge": WORDS | {"knowledge"},
    "formats": FORMATS,
    "thinking": THINKING,
    "moving": MOVING,
    "kernels": WORDS | {"kernels"},
    "proof": PROOF,
    "story": STORY,
    "reports": STORY | {"reports"},
    "cli": STORY | {"reports", "cli"},
}
EVERYWHERE = {"version"}  # a constant
NAMES_ONLY = {"proof.verdict"}  # plain records that the cli and reports show


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """Every module that a file imports, for types or inside a function too."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=str(module), names=names):
                yield node.lineno, module
                if module == "ropeconv":
                    yield from ((node.lineno, f"ropeconv.{alias.name}") for alias in names)


def floor_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


@pytest.mark.parametrize("module", [name for name in MODULES if floor_of(name) in FLOORS])
def test_module_imports_only_from_its_own_floor_and_below(module: str) -> None:
    allowed = FLOORS[floor_of(module)] | EVERYWHERE
    upwards = [
        f"line {line}: {name}"
        for line, name in imports_of(MODULES[module])
        if name.startswith("ropeconv.") and floor_of(name) not in allowed
    ]

    assert upwards == []


def test_every_module_stands_on_a_floor() -> None:
    known = {*FLOORS, "", "__init__", "__main__", "version"}

    assert {floor_of(module) for module in MODULES} <= known


def test_reordering_knows_no_name_of_a_layout() -> None:
    """There is no `if interleaved:` in the order of rows: it follows from two strides."""
    source = (PACKAGE / "words" / "layout.py").read_text()
    order = source[source.index("def row_order") : source.index("class Tensor")]
    code = re.sub(r'""".*?"""', "", order, flags=re.DOTALL)

    assert "INTERLEAVED" not in code
    assert "HALF_SPLIT" not in code


HEAVY = ("torch", "triton", "numpy", "transformers", "safetensors")
DRAWN = {"rich.console", "rich.progress", "rich.markup"}  # 45 ms, for a bar that a person looks at
WORK = ("story", "formats", "knowledge", "thinking", "proof", "kernels")  # of a command that runs


LISTING = """
import atexit, sys
atexit.register(lambda: print(*sys.modules, sep="\\n", file=sys.stderr))
from ropeconv.cli.main import main
main()
"""


def imported_by(*arguments: str) -> set[str]:
    """Names of all modules that a command imports, and of what else it says on stderr."""
    done = subprocess.run(
        [sys.executable, "-c", LISTING, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=PACKAGE.parent,
    )
    assert done.returncode == 0, done.stderr[-500:]
    return set(done.stderr.splitlines())


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["convert", "-h"]])
def test_command_that_does_nothing_imports_no_work(arguments: list[str]) -> None:
    found = imported_by(*arguments)

    assert "ropeconv.cli.app" in found, "the control"
    assert {name for name in found if name.startswith("ropeconv.") and floor_of(name) in WORK} == (
        set()
    )
    assert {name for name in found if name.startswith("ropeconv.reports.")} == {
        "ropeconv.reports.forms",
        "ropeconv.reports.text",
    }
    assert found & DRAWN == set()


def test_form_of_a_report_is_imported_when_it_is_asked_for(tmp_path: Path) -> None:
    words = ("convert", "meta-to-hf", str(make_small.FOLDER / "llama"), "--dry-run")
    plain = imported_by(*words, str(tmp_path / "a"))
    asked = imported_by(*words, str(tmp_path / "a"), "--report", str(tmp_path / "a.md"))
    forms = {f"ropeconv.reports.{name}_report" for name in ("json", "junit", "markdown", "html")}

    assert "ropeconv.story.conversion" in plain, "the control"
    assert plain & (forms | DRAWN | {"ropeconv.story.relayout", "ropeconv.story.verification"}) == (
        set()
    )
    assert asked & forms == {"ropeconv.reports.markdown_report"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["inspect", str(make_small.FOLDER / "llama")],
        ["convert", "meta-to-hf", str(make_small.FOLDER / "llama"), "{target}"],
    ],
    ids=["help", "inspect", "convert"],
)
def test_command_that_proves_nothing_imports_nothing_heavy(
    tmp_path: Path, arguments: list[str]
) -> None:
    """A broken GPU driver must not break a conversion, nor slow the start down."""
    arguments = [word.format(target=tmp_path / "out") for word in arguments]
    imported = imported_by(*arguments)

    assert "ropeconv.cli.main" in imported
    assert {name for name in imported if name.split(".")[0] in HEAVY} == set()


@pytest.mark.parametrize("name", ropeconv.__all__)
def test_public_name_can_be_had(name: str) -> None:
    assert getattr(ropeconv, name) is not None


def test_public_names_are_frozen() -> None:
    needed = {
        "HALF_SPLIT", "INTERLEAVED", "HfOptions", "Keep", "MetaOptions", "Outcome", "Repeat",
        "Rope", "RopeconvError", "Said", "Verdict", "convert", "inspect", "reorder_rows",
        "row_order", "verify",
    }  # fmt: skip

    assert needed <= set(ropeconv.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'permute'"):
        _ = ropeconv.permute


@pytest.mark.parametrize("module", MODULES)
def test_no_string_stands_alone_where_a_sentence_was_cut(module: str) -> None:
    """`text = "a"` with `"b"` on the next line is two statements: half of a message is lost."""
    tree = ast.parse(MODULES[module].read_text())
    docstrings = {
        id(node.body[0])
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body
    }
    alone = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant | ast.JoinedStr)
        and id(node) not in docstrings
        and not (isinstance(node.value, ast.Constant) and node.value.value is ...)
    ]

    assert alone == []


@pytest.mark.parametrize("module", MODULES)
def test_no_text_has_a_hole_or_an_unfilled_brace(module: str) -> None:
    """What a backslash, a badly wrapped paragraph or a lost `f` prefix leaves in texts."""
    tree = ast.parse(MODULES[module].read_text())
    formatted = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in node.values
    }
    texts = [node for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    holes = [
        f"line {node.lineno}: {line[:70]!r}"
        for node in texts
        for line in (node.value.splitlines() if isinstance(node.value, str) else ())
        if re.search(r"\w+ \w+.* \w+ {4,5}\w", line)
        or (id(node) not in formatted and re.search(r"`\{(?!layer|base)[a-z_.]+\}`", line))
    ]

    assert holes == []


def test_nothing_is_left_to_do_in_the_code() -> None:
    marks = re.compile(r"\b(TODO|FIXME|XXX|HACK|NotImplementedError)\b")
    found = [
        f"{module}:{number}"
        for module, path in MODULES.items()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if marks.search(line) and "except" not in line
    ]

    assert found == []


def test_source_is_ascii() -> None:
    bent = [module for module, path in MODULES.items() if not path.read_bytes().isascii()]

    assert bent == []


DOCS_PAGES = {"ropeconv.story.families"}  # it writes docs/families.md, about the command


def said_by(module: str) -> list[str]:
    """Texts of a module but docstrings, each f-string as one, with `x` for what is filled in."""
    tree = ast.parse(MODULES[module].read_text())
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    inner = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in ast.walk(node)
        if part is not node
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr) and id(node) not in inner:
            parts = (p.value if isinstance(p, ast.Constant) else "x" for p in node.values)
            found.append("".join(map(str, parts)))
        elif isinstance(node, ast.Constant) and id(node) not in docs | inner:
            found += [node.value] if isinstance(node.value, str) else []
    return found


LIBRARY = [name for name in MODULES if floor_of(name) in FLOORS and floor_of(name) != "cli"]


@pytest.mark.parametrize("module", sorted(set(LIBRARY) - DOCS_PAGES))
def test_library_names_no_option_of_the_command(module: str) -> None:
    """Whoever calls it from Python has none. A whole command may be named: anyone can run it."""
    commands = re.compile(r"ropeconv (convert|verify|inspect|families)\b[^`;:]*")
    options = [text for text in said_by(module) if re.search(r"--[a-z]", commands.sub("", text))]

    assert options == []


@pytest.mark.parametrize("module", LIBRARY)
def test_setting_that_the_library_names_has_an_option(module: str) -> None:
    """An error that says `Handling(restart=True)` must say --restart on the command line."""
    setting = re.compile(r"`(?:[A-Z]\w+\()?[a-z_]+=[^`= ]*`|`Part\.\w+`")
    left = [text for text in said_by(module) if setting.search(as_options(text))]

    assert left == []


def test_settings_and_their_options_exist() -> None:
    parameters = {
        name
        for function in (ropeconv.convert, ropeconv.verify)
        for name in signature(function).parameters
    }
    options = {name for names in FROZEN.values() for option in names for name in option.split("/")}
    for text, option in OPTIONS.items():
        owner, name = re.findall(r"`(?:(\w+)\()?(\w+)=", text)[0]
        known = {f.name for f in fields(getattr(ropeconv, owner))} if owner else parameters

        assert name in known, text
        assert set(re.findall(r"--[a-z-]+", option)) <= options
    said = {f"--{field.name.replace('_', '-')}" for field in fields(ropeconv.Said)}

    assert said <= options
    assert as_options("`Said(context_length=9)`") == "--context-length 9"


MENDABLE = {
    "UsageError", "RowsError", "NotSaid", "NotACheckpoint", "AlreadyConverted", "TargetExists",
    "TargetBusy", "NoRoom", "NoMemory", "AnotherRun", "Interrupted",
}  # fmt: skip


@pytest.mark.parametrize("module", MODULES)
def test_error_that_a_user_can_mend_says_how(module: str) -> None:
    """Other kinds have a usual fix, or none: what a model is, nobody can mend."""
    silent = [
        f"line {node.lineno}: {node.func.id}"
        for node in ast.walk(ast.parse(MODULES[module].read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in MENDABLE
        and "fix" not in {keyword.arg for keyword in node.keywords}
    ]

    assert silent == []

"""--report, from real runs: forms by ending, schema, exit codes, files that cannot be written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import jsonschema
import pytest
import torch
from typer.testing import CliRunner

from fixtures import make_small
from ropeconv.cli.app import app
from ropeconv.kernels import KernelCheck, KernelReport, RopeTable, ScoreForm
from ropeconv.proof.distances import by_distance
from ropeconv.reports.forms import CONVERSION, INSPECTION, KERNEL, VERDICT
from ropeconv.reports.json_report import error_json
from ropeconv.words.errors import UsageError
from ropeconv.words.frequencies import RopeSettings
from ropeconv.words.layout import HALF_SPLIT, INTERLEAVED, Rope, row_order
from tests.reports import cases

SCHEMA = Path(__file__).parents[2] / "docs/schema/ropeconv-1.schema.json"
SOURCE = make_small.FOLDER / "llama-odd-bits"


def run(*arguments: object) -> tuple[int, str]:
    """Exit code and all that was said."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return done.exit_code, done.output


def strict(schema: Any) -> Any:
    """The schema with no field beyond those that it describes: what we write is all described."""
    match schema:
        case {"type": "object", "properties": dict()} if "required" in schema:
            closed = {key: strict(value) for key, value in schema.items()}
            return closed if "$defs" in schema else {**closed, "additionalProperties": False}
        case dict():
            return {key: strict(value) for key, value in schema.items()}
        case list():
            return [strict(item) for item in schema]
        case _:
            return schema


def check(line: str) -> dict[str, Any]:
    """A result that is as the schema says, down to the last field."""
    found: dict[str, Any] = json.loads(line)
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(found, schema)
    body = {key: value for key, value in found.items() if key not in ("schema", "type", "ropeconv")}
    closed = strict(schema)
    jsonschema.validate(body, {"$defs": closed["$defs"], "$ref": f"#/$defs/{found['type']}"})
    return found


@pytest.mark.parametrize("verdict", cases.EVERY)
def test_verdict_in_json_is_as_the_schema_says(verdict: Any) -> None:
    found = check(VERDICT[".json"](verdict))

    assert found["outcome"] == verdict.outcome.value
    assert found["exit_code"] == verdict.exit_code


def test_schema_refuses_what_is_not_a_result() -> None:
    found = json.loads(VERDICT[".json"](cases.same()))
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    for wrong in (
        {**found, "schema": 2},
        {**found, "type": "other"},
        {**found, "outcome": "fine"},
        {key: value for key, value in found.items() if key != "exact"},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)
    body = {**found["exact"], "undescribed": 1}
    exact = strict(schema)["$defs"]["verdict"]["properties"]["exact"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(body, {"$defs": strict(schema)["$defs"], **exact})


def test_error_and_kernel_in_json_are_as_the_schema_says() -> None:
    failed = KernelCheck(name="a|b", error=1.0, bound=0.5, reason="why")
    report = KernelReport(
        device="CPU", backend="interpreter", torch="2", triton="3", checks=(failed,)
    )

    assert check(error_json(UsageError(what="what", fix="fix")))["code"] == "usage"
    assert check(KERNEL[".json"](report))["passed"] is False
    assert ET.fromstring(KERNEL[".xml"](report)).attrib["failures"] == "1"
    assert "| `a\\x7cb` | **failed** | 1 | at most 0.5 |" in KERNEL[".md"](report)


def test_inconclusive_run_writes_its_report_and_exits_with_3(
    converted: Callable[[str], Path], tmp_path: Path
) -> None:
    target = converted("llama-odd-bits")
    for ending in (".html", ".xml"):
        file = tmp_path / f"report{ending}"
        code, _ = run("verify", "checkpoint", target, "--against", SOURCE, "--report", file, "-q")

        assert code == 3
        assert file.read_text(encoding="utf-8").endswith("\n")
    assert "Why there is no verdict" in (tmp_path / "report.html").read_text(encoding="utf-8")
    root = ET.parse(tmp_path / "report.xml").getroot()
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("5", "0", "3")
    times = {case.attrib["name"]: float(case.attrib["time"]) for case in root.iter("testcase")}
    assert set(times) == {"bytes", "config", "scores", "layer 0", "layer 1"}
    assert 0 < times["layer 0"] <= times["scores"]
    assert float(root.attrib["time"]) == pytest.approx(
        times["bytes"] + times["config"] + times["scores"], abs=0.003
    )


def test_right_run_has_distances_and_exits_with_0(
    converted: Callable[[str], Path], tmp_path: Path
) -> None:
    file, source = tmp_path / "report.json", make_small.FOLDER / "llama-2-ranks"
    target = converted("llama-2-ranks")
    code, said = run("verify", "checkpoint", target, "--against", source, "--report", file)
    found = check(file.read_text())
    points = found["scores"]["by_distance"]["points"]

    assert (code, found["outcome"]) == (0, "same"), said
    assert {point["difference"] for point in points} == {0.0}
    assert points[0]["control"] < 1e-9 < min(point["control"] for point in points[1:])


@pytest.mark.parametrize("ending", list(CONVERSION))
def test_conversion_and_inspection_write_their_forms(ending: str, tmp_path: Path) -> None:
    file, other = tmp_path / f"a{ending}", tmp_path / f"b{ending}"
    planned, _ = run(
        "convert", "meta-to-hf", SOURCE, tmp_path / "out", "--dry-run", "--report", file, "-q"
    )
    inspected, _ = run("inspect", SOURCE, "--report", other, "-q")

    assert (planned, inspected) == (0, 0)
    assert set(CONVERSION) == set(INSPECTION)
    for path, words in ((file, "conversion"), (other, "inspection")):
        if ending == ".json":
            assert check(path.read_text())["type"] == words
        else:
            assert "| layers | 2 |" in path.read_text() or "planned only" in path.read_text()


@pytest.mark.parametrize(
    ("command", "name", "possible"),
    [
        (("inspect", SOURCE), "report.html", ".json or .md"),
        (("inspect", SOURCE), "report", ".json or .md"),
        (("convert", "meta-to-hf", SOURCE, "out"), "report.xml", ".json or .md"),
        (
            ("verify", "checkpoint", "out", "--against", SOURCE),
            "report.pdf",
            ".json, .xml, .md or .html",
        ),
    ],
)
def test_other_ending_is_refused_with_those_that_are_possible(
    command: tuple[object, ...], name: str, possible: str, tmp_path: Path
) -> None:
    code, said = run(*command, "--report", tmp_path / name)

    assert code == 2
    assert f"name a file that ends in {possible}" in " ".join(said.split())


def test_report_that_cannot_be_written_is_said_before_the_work(tmp_path: Path) -> None:
    target = tmp_path / "out"
    code, said = run(
        "convert", "meta-to-hf", SOURCE, target, "--report", tmp_path / "missing" / "a.json"
    )

    assert code == 6
    assert "cannot write the report" in said
    assert not target.exists()


def test_older_report_does_not_outlive_a_run_that_fails(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text("the same model")
    code, _ = run("verify", "checkpoint", tmp_path, "--against", SOURCE, "--report", file)

    assert code == 4
    assert not file.exists()


def test_distances_show_a_wrong_layout_everywhere_but_at_zero() -> None:
    """Planted: the target's rows are not reordered. A right reorder is exactly zero."""
    generator = torch.Generator().manual_seed(1)
    positions = (0, 3, 5, 64)
    q, k = (torch.randn(1, 4, heads, 10, generator=generator) for heads in (3, 1))
    order = list(row_order((Rope(10),), INTERLEAVED, HALF_SPLIT))
    table = RopeTable.from_settings(
        RopeSettings(theta=1e4), 10, torch.tensor(positions), device="cpu", dtype=torch.float64
    )
    source = ScoreForm(q=q, k=k, layout=INTERLEAVED, table=table)
    right = ScoreForm(q=q[..., order], k=k[..., order], layout=HALF_SPLIT, table=table)
    wrong = ScoreForm(q=q, k=k, layout=HALF_SPLIT, table=table)
    found = by_distance(source, right, positions)
    planted = by_distance(source, wrong, positions)

    assert [(point.first, point.last) for point in found] == [
        (0, 0),
        (2, 3),
        (4, 7),
        (32, 63),
        (64, 127),
    ]
    assert {point.difference for point in found} == {0.0}
    assert [point.difference for point in planted] == [point.control for point in planted]
    assert planted[0].control < 1e-12
    assert min(point.control for point in planted[1:]) > 1e-2

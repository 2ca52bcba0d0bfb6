"""Verdicts in every form: what they say, and that strangers' names do no harm."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from ropeconv.proof.judgement import judge, judge_layer
from ropeconv.proof.verdict import Outcome, Verdict
from ropeconv.reports.charts import heat_class
from ropeconv.reports.forms import VERDICT
from ropeconv.reports.html_report import verdict_html
from ropeconv.reports.junit_report import verdict_junit
from ropeconv.reports.markdown_report import code, verdict_markdown
from ropeconv.reports.sentences import repair
from ropeconv.reports.text import printable
from tests.reports import cases

VOID = {"meta", "br"}
HEADLINES = {
    Outcome.SAME: "The two checkpoints are the same model.",
    Outcome.DIFFERENT: "The two checkpoints are not the same model.",
    Outcome.INCONCLUSIVE: "It could not be shown that the two checkpoints are the same model.",
}


class Page(HTMLParser):
    """A page's tags, attributes and text; fails on tags that do not close in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def hostile() -> Verdict:
    """Strangers have named a tensor, a folder, a mistake and a device."""
    found = cases.different(tensor=cases.HOSTILE)
    return replace(
        found,
        target=replace(found.target, path=Path(cases.HOSTILE), family=cases.HOSTILE),
        source=replace(found.source, path=Path(cases.HOSTILE)),
        exact=replace(found.exact, diagnosis=(f"{cases.HOSTILE}: not reordered",)),
        scores=replace(found.scores, device=cases.HOSTILE, why=cases.HOSTILE),
    )


@pytest.mark.parametrize("verdict", cases.EVERY)
def test_page_says_the_verdict_once_and_closes_every_tag(verdict: Verdict) -> None:
    page = Page(verdict_html(verdict))

    assert page.open == []
    assert page.tags.count("h1") == 1
    assert HEADLINES[verdict.outcome] in page.text


@pytest.mark.parametrize("verdict", [*cases.EVERY, hostile()])
def test_page_has_no_script_and_asks_nobody(verdict: Verdict) -> None:
    made = verdict_html(verdict)
    page = Page(made)

    active = {"script", "link", "img", "iframe", "object", "a", "form", "base", "image", "use"}
    assert active & set(page.tags) == set()
    assert [name for name, _ in page.attributes if name in ("href", "src", "xlink:href")] == []
    assert [name for name, _ in page.attributes if name.startswith("on")] == []
    assert "url(" not in made
    assert "@import" not in made
    assert "default-src 'none'" in made


@pytest.mark.parametrize("ending", [".html", ".md", ".xml"])
def test_report_without_strangers_has_no_address(ending: str) -> None:
    for verdict in cases.EVERY:
        assert re.findall(r"\w+://", VERDICT[ending](verdict)) == []


@pytest.mark.parametrize("ending", list(VERDICT))
def test_hostile_names_stay_text_of_one_line(ending: str) -> None:
    made = VERDICT[ending](hostile())

    made.encode()  # no lone surrogate
    assert [c for c in made if not c.isprintable() and c != "\n"] == []
    if ending == ".html":
        page = Page(made)
        assert "script" not in page.tags
        assert printable(cases.HOSTILE) in page.text
    if ending == ".xml":
        target = ET.fromstring(made.encode()).find(".//property[@name='target']")
        assert target is not None
        assert target.get("value") == printable(Path(cases.HOSTILE))


def test_every_graphic_has_words_for_those_who_do_not_see_it() -> None:
    for verdict in cases.EVERY:
        made = verdict_html(verdict)
        for graphic in re.findall(r"<svg [^>]*>.*?</svg>", made, re.DOTALL):
            assert 'aria-hidden="true"' in graphic or (
                "<title id=" in graphic and "<desc" in graphic
            )
        ids = re.findall(r' id="([^"]+)"', made)
        assert sorted(ids) == sorted(set(ids))
        labels = re.findall(r'aria-labelledby="([^"]+)"', made)
        assert {one for label in labels for one in label.split()} == set(ids)


def test_page_of_a_difference_has_cause_repair_and_numbers() -> None:
    text = Page(verdict_html(cases.different())).text

    assert "q_proj of layer 1: not reordered, the rows are still interleaved" in text
    assert "ropeconv convert meta-to-hf 'llama 2' NEW" in text
    assert "ropeconv verify checkpoint NEW --against 'llama 2'" in text
    assert "norm_eps: 1e-06, source says 1e-05" in text
    assert "layer 1, key head 1: 2, rounding may cause 3e-05" in text
    assert "Attention scores of layers 2" in text
    assert "torch" in text


def test_page_of_the_same_names_the_layouts_that_it_holds_under() -> None:
    text = Page(verdict_html(cases.same())).text

    assert "under the layouts that both declare: the target half-split rows" in text
    assert "exactly zero" in text
    assert "What is wrong" not in text


def test_page_without_power_says_why() -> None:
    text = Page(verdict_html(cases.inconclusive())).text

    assert "Why there is no verdict" in text
    assert "scores: layer 1: the source's projections hold NaN" in text
    assert "NaN" in text
    assert "What is wrong" not in text


def test_cells_beyond_the_bound_are_marked_by_more_than_colour() -> None:
    page = verdict_html(cases.different())
    beyond = re.findall(r'<g class="beyond-\d"><title>.*?</g>', page)

    assert [heat_class(value, 1e-5) for value in (0.0, 1e-5, 1.1e-5)] == [
        "zero", "within", "beyond-1",
    ]  # fmt: skip
    assert len(beyond) == 2  # 0.5 and 2.0 of layer 1
    assert all('class="corner"' in cell for cell in beyond)


@pytest.mark.parametrize(
    ("verdict", "tests", "failures", "errors", "skipped"),
    [
        (cases.same(), 6, 0, 0, 1),  # three checks, two layers and one that was not chosen
        (cases.different(), 6, 4, 0, 1),
        (cases.inconclusive(), 6, 0, 2, 1),
        (cases.not_comparable(), 3, 2, 1, 0),
        (cases.with_logits(), 7, 0, 0, 1),
    ],
)
def test_junit_counts_are_those_of_its_testcases(
    verdict: Verdict, tests: int, failures: int, errors: int, skipped: int
) -> None:
    root = ET.fromstring(verdict_junit(verdict).encode())

    expected = {"tests": tests, "failures": failures, "errors": errors}
    assert {key: int(root.attrib[key]) for key in expected} == expected
    assert "skipped" not in root.attrib  # of which Jenkins' schema knows nothing
    assert sum(int(suite.attrib["skipped"]) for suite in root) == skipped
    for scope in (root, *root.findall("testsuite")):
        found = {
            "tests": len(scope.findall(".//testcase")),
            "failures": len(scope.findall(".//failure")),
            "errors": len(scope.findall(".//error")),
            "skipped": len(scope.findall(".//skipped")),
        }
        assert {key: int(scope.attrib.get(key, found[key])) for key in found} == found
    names = [(case.get("classname"), case.get("name")) for case in root.iter("testcase")]
    assert len(set(names)) == len(names)


def test_junit_has_the_times_that_it_is_told() -> None:
    """The layers are a part of the scores, so they are not counted twice."""
    told = {"bytes": 1.25, "config": 0.0004, "scores": 2.5, "layer 0": 1.0, "layer 1": 1.5}
    root = ET.fromstring(verdict_junit(cases.same(), told).encode())
    times = {case.get("name"): case.get("time") for case in root.iter("testcase")}

    assert times == {
        "bytes": "1.250", "config": "0.000", "scores": "2.500", "layer 0": "1.000",
        "layer 1": "1.500", "layer 2": None,
    }  # fmt: skip
    assert [suite.get("time") for suite in root] == ["3.750", "2.500"]
    assert root.get("time") == "3.750"


def test_junit_without_times_has_none() -> None:
    """Equal verdicts make equal files."""
    made = verdict_junit(cases.same())

    assert made == verdict_junit(cases.same())
    assert "time" not in {key for place in ET.fromstring(made).iter() for key in place.attrib}


def test_junit_failures_carry_the_diagnosis() -> None:
    root = ET.fromstring(verdict_junit(cases.different()).encode())
    failures = {
        case.attrib["name"]: found
        for case in root.iter("testcase")
        if (found := case.find("failure")) is not None
    }

    assert set(failures) == {"bytes", "config", "scores", "layer 1"}
    for name in ("bytes", "scores", "layer 1"):
        assert "q_proj of layer 1: not reordered" in (failures[name].text or "")
    assert failures["config"].get("message") == "norm_eps: 1e-06, source says 1e-05"


def test_junit_says_inconclusive_as_an_error_of_that_type() -> None:
    for verdict in (cases.inconclusive(), cases.not_comparable()):
        root = ET.fromstring(verdict_junit(verdict).encode())

        assert {error.get("type") for error in root.iter("error")} == {"inconclusive"}


def test_markdown_of_the_same_is_this() -> None:
    lines = verdict_markdown(cases.same()).splitlines()

    assert lines[2] == (
        "**The two checkpoints are the same model.** This holds under the layouts that both"
        " declare: the target half-split, the source interleaved. Whoever runs the target must"
        " rotate half-split rows, as its format declares."
    )
    assert "| target | `out` | hf | half-split | `llama` |" in lines
    assert (
        "| bytes | **same** | 21 tensors, 86.4 KB; 4 of them compared in their new row order |"
        in lines
    )


def test_markdown_tables_keep_their_columns_whatever_a_folder_is_called() -> None:
    made = verdict_markdown(replace(hostile()))
    rows = [line for line in made.splitlines() if line.startswith(("| target", "| source"))]

    assert [row.count("|") for row in rows] == [6, 6]


@pytest.mark.parametrize("name", ["a", "`", "``a`", "a`b``c", "", "\n"])
def test_code_span_opens_and_closes_with_a_run_that_is_not_inside(name: str) -> None:
    span = code(name)
    fence = re.match("`+", span)
    assert fence is not None
    inside = span[len(fence[0]) : -len(fence[0])]

    assert span.endswith(fence[0])
    assert fence[0] not in re.findall("`+", inside)


def test_repair_is_only_for_a_difference() -> None:
    assert repair(cases.same()) is None
    assert repair(cases.inconclusive()) is None


@pytest.mark.parametrize(
    ("source", "target", "command"),
    [
        (("meta", "interleaved"), ("hf", "half-split"), "meta-to-hf"),
        (("hf", "half-split"), ("meta", "interleaved"), "hf-to-meta"),
        (("hf", "interleaved"), ("hf", "half-split"), "interleaved-to-half"),
        (("hf", "half-split"), ("hf", "interleaved"), "half-to-interleaved"),
        (("hf", "half-split"), ("hf", "half-split"), ""),
    ],
)
def test_repair_is_the_conversion_between_the_two_forms(
    source: tuple[str, str], target: tuple[str, str], command: str
) -> None:
    found = cases.different()
    mend = repair(
        replace(
            found,
            source=replace(found.source, format=source[0], layout=source[1]),
            target=replace(found.target, format=target[0], layout=target[1]),
        )
    )

    assert mend is not None
    if command:
        assert mend.commands[0] == f"ropeconv convert {command} 'llama 2' NEW"
        assert mend.commands[1] == "ropeconv verify checkpoint NEW --against 'llama 2'"
    else:
        assert mend.commands == ()


def test_one_layer_is_judged_as_all_layers_are() -> None:
    good, wrong, unsure = cases.layer(0), cases.layer(1, differences=(1.0,)), cases.layer(2)
    unsure = replace(unsure, bound=1.0)

    assert [judge_layer(one)[0] for one in (good, wrong, unsure)] == [
        Outcome.SAME,
        Outcome.DIFFERENT,
        Outcome.INCONCLUSIVE,
    ]
    assert judge([good, unsure, wrong]) == judge_layer(wrong)
    assert judge([good, unsure]) == judge_layer(unsure)
    assert judge([good]) == (Outcome.SAME, "")
    assert judge([])[0] is Outcome.INCONCLUSIVE


def test_reports_of_equal_verdicts_are_equal() -> None:
    for make in VERDICT.values():
        assert make(cases.different()) == make(cases.different())

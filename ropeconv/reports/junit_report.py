"""A verdict as JUnit XML, which GitLab, GitHub's and Jenkins' readers show beside other tests.

Each check and each layer is a testcase. A difference is a failure; a check without power, or one
that did not run, is an error of type "inconclusive"; a layer that was not chosen is skipped.

Times are those of one run, so they are given beside the verdict; without them, equal verdicts make
equal files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from ropeconv.proof.judgement import judge_layer
from ropeconv.proof.verdict import LayerScores, Outcome
from ropeconv.reports.sentences import causes, checks, repair, verify_command, versions
from ropeconv.reports.text import number, printable
from ropeconv.version import __version__

if TYPE_CHECKING:
    from ropeconv.kernels.selfcheck import KernelReport
    from ropeconv.proof.verdict import Verdict

MOST_CAUSES = 200  # of a failure's text; JSON has them all
_TAGS = {
    Outcome.DIFFERENT: ("failure", "different"),
    Outcome.INCONCLUSIVE: ("error", "inconclusive"),
    Outcome.NOT_RUN: ("error", "inconclusive"),
}


@dataclass(frozen=True, kw_only=True)
class _Case:
    """One testcase."""

    name: str
    outcome: Outcome
    message: str = ""
    text: str = ""
    skipped: bool = False
    seconds: float | None = None  # None: nobody looked at a clock


def verdict_junit(verdict: Verdict, seconds: Mapping[str, float] = MappingProxyType({})) -> str:
    """A proof.

    Args:
        verdict: what was found.
        seconds: how long each check took, by its name, and each layer, by `layer N`.
    """
    properties = {
        "target": str(verdict.target.path),
        "source": str(verdict.source.path),
        "outcome": verdict.outcome.value,
        "command": verify_command(verdict),
        **dict(versions(verdict)),
    }
    detail = _detail(verdict)
    about = [
        _Case(
            name=check.name,
            outcome=check.outcome,
            message=check.why or check.facts,
            text=f"{check.facts}\n{detail}" if check.outcome is Outcome.DIFFERENT else check.facts,
        )
        for check in checks(verdict)
    ]
    suites = {
        title: [replace(case, seconds=seconds.get(case.name)) for case in cases]
        for title, cases in (("checks", about), ("layers", _layers(verdict)))
    }
    return _document("ropeconv verify checkpoint", suites, properties)


def kernel_junit(report: KernelReport) -> str:
    """The kernel's checks on one machine."""
    cases = [
        _Case(
            name=check.name,
            outcome=Outcome.SAME if check.passed else Outcome.DIFFERENT,
            message=f"error {number(check.error)}, bound {number(check.bound)}",
            text=check.reason,
        )
        for check in report.checks
    ]
    properties = {
        "ropeconv": __version__,
        "device": report.device,
        "backend": report.backend,
        "torch": report.torch,
        "triton": report.triton,
    }
    return _document("ropeconv verify kernel", {"kernel": cases}, properties)


def _detail(verdict: Verdict) -> str:
    found = causes(verdict)
    lines = [f"{tensor}: {text}" if tensor else text for tensor, text in found[:MOST_CAUSES]]
    if len(found) > MOST_CAUSES:
        lines.append(f"and {len(found) - MOST_CAUSES} more; a report in JSON has them all")
    if mend := repair(verdict):
        lines += [mend.text, *mend.commands]
    return "\n".join(printable(line) for line in lines)


def _layers(verdict: Verdict) -> list[_Case]:
    scores = verdict.scores
    looked = {layer.layer: layer for layer in scores.layers}
    cases = []
    for at in range(scores.num_layers if looked else 0):
        if (layer := looked.get(at)) is None:
            skipped = _Case(
                name=f"layer {at}", outcome=Outcome.SAME, message="not chosen", skipped=True
            )
            cases.append(skipped)
            continue
        outcome, why = judge_layer(layer)
        named = verdict.exact.diagnosis if outcome is Outcome.DIFFERENT else ()
        text = "\n".join([_numbers(layer), *map(printable, named)])
        cases.append(_Case(name=f"layer {at}", outcome=outcome, message=why, text=text))
    return cases


def _numbers(layer: LayerScores) -> str:
    if not layer.groups:
        return "the projections of one side or both hold NaN or infinity"
    return (
        f"largest difference {number(layer.max_difference)}, bound {number(layer.bound)}, weakest"
        f" control {number(layer.control)}"
    )


def _document(
    name: str, suites: dict[str, Sequence[_Case]] | dict[str, list[_Case]], about: dict[str, str]
) -> str:
    every = [case for cases in suites.values() for case in cases]
    whole = next(iter(suites.values()))  # the layers' times are within that of the scores
    counts = _counts(every) | _time(whole)
    counts.pop("skipped")  # Jenkins' schema knows it of a suite, not of all together
    root = ET.Element("testsuites", {"name": name, **counts})
    for title, cases in suites.items():
        if not cases:
            continue
        suite = ET.SubElement(root, "testsuite", {"name": f"{name}: {title}", **_counts(cases)})
        properties = ET.SubElement(suite, "properties")
        for key, value in about.items():
            ET.SubElement(properties, "property", {"name": key, "value": printable(value)})
        for case in cases:
            _add(suite, f"ropeconv.{title}", case)
    ET.indent(root)
    body = ET.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}\n'


def _counts(cases: Sequence[_Case]) -> dict[str, str]:
    tags = ["skipped" if case.skipped else _TAGS.get(case.outcome, ("",))[0] for case in cases]
    counts = {"failures": "failure", "errors": "error", "skipped": "skipped"}
    return {
        "tests": str(len(cases)),
        **{name: str(tags.count(tag)) for name, tag in counts.items()},
        **_time(cases),
    }


def _time(cases: Sequence[_Case]) -> dict[str, str]:
    """Seconds, where somebody looked at a clock."""
    seconds = [case.seconds for case in cases if case.seconds is not None]
    return {"time": f"{sum(seconds):.3f}"} if seconds else {}


def _add(suite: ET.Element, classname: str, case: _Case) -> None:
    about = {"classname": classname, "name": printable(case.name)}
    place = ET.SubElement(suite, "testcase", about | _time([case]))
    message = {"message": printable(case.message)}
    if case.skipped:
        ET.SubElement(place, "skipped", message)
    elif case.outcome in _TAGS:
        tag, kind = _TAGS[case.outcome]
        ET.SubElement(place, tag, {"type": kind, **message}).text = case.text
    else:
        ET.SubElement(place, "system-out").text = case.text

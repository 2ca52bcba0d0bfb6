"""Results as Markdown, for a model card or a job's summary.

Whatever a stranger may have named stands in code spans: there no markup, link or mention begins.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ropeconv.proof.verdict import Outcome
from ropeconv.reports.sentences import (
    CAVEAT,
    advice,
    causes,
    checks,
    doubts,
    headline,
    not_looked_at,
    repair,
    versions,
)
from ropeconv.reports.text import counted, number, printable, size
from ropeconv.version import __version__

if TYPE_CHECKING:
    from ropeconv.kernels.selfcheck import KernelReport
    from ropeconv.proof.verdict import Verdict
    from ropeconv.story.conversion import ConversionReport
    from ropeconv.story.inspection import Inspection
    from ropeconv.words.model import Note

MOST_CAUSES = 20  # a card is read; JSON has them all
_PIPE = "\\x7c"


def verdict_markdown(verdict: Verdict) -> str:
    """A proof."""
    target, source = verdict.target, verdict.source
    holds = f"This holds {CAVEAT}: the target {target.layout}, the source {source.layout}. "
    holds = holds if verdict.outcome is Outcome.SAME else ""
    lines = [
        "## Conversion proof",
        "",
        f"**{headline(verdict)}** {holds}{advice(verdict)}",
        "",
        *_table(
            ("", "path", "format", "layout", "family"),
            [
                (name, code(side.path), side.format, side.layout, code(side.family))
                for name, side in (("target", target), ("source", source))
            ],
        ),
        "",
        *_table(
            ("check", "outcome", "compared"),
            [(check.name, f"**{check.outcome.value}**", check.facts) for check in checks(verdict)],
        ),
    ]
    scores = verdict.scores
    if scores.layers and scores.weakest_margin:
        lines += [
            "",
            (
                "Planted mistakes change a score by at least"
                f" {scores.weakest_margin:,.0f} times what rounding may cause."
            ),
        ]
    if found := doubts(verdict):
        lines += ["", "No verdict, because:", "", *(f"- {code(text)}" for text in found)]
    lines += _wrong(verdict)
    lines += ["", "Not looked at:", "", *(f"- {text}" for text in not_looked_at(verdict))]
    made = ", ".join(f"{name} {code(version)}" for name, version in versions(verdict))
    return "\n".join([*lines, "", f"Made by {made}.", ""])


def _wrong(verdict: Verdict) -> list[str]:
    lines = []
    if found := causes(verdict):
        lines += ["", "What is wrong:", ""]
        for tensor, text in found[:MOST_CAUSES]:
            lines.append(f"- {code(tensor)}: {code(text)}" if tensor else f"- {code(text)}")
        if len(found) > MOST_CAUSES:
            lines.append(f"- and {len(found) - MOST_CAUSES} more; a report in JSON has them all")
    if verdict.scores.outcome is Outcome.DIFFERENT:
        lines += ["", f"Scores: {code(verdict.scores.why)}"]
    if mend := repair(verdict):
        lines += ["", mend.text, *([""] if mend.commands else ()), *_fenced(mend.commands)]
    return lines


def conversion_markdown(report: ConversionReport) -> str:
    """A conversion, done or planned."""
    plan = report.plan
    tensors = plan.num_tensors
    files = report.written_files
    written = f"{size(sum(nbytes for _, nbytes in files))} in {counted(len(files), 'file')}"
    needs = report.needs
    planned = [
        ("would be written", written),
        ("memory", f"at most {size(needs.memory_nbytes)}"),
        ("disk", f"{size(needs.disk_nbytes)}, of {size(needs.disk_free_nbytes)} that are free"),
    ]
    verb = "were" if report.done else "would be"
    rows = [
        ("source", f"{code(report.source)}, {plan.source.format.value}, {plan.source_layout} rows"),
        ("target", f"{code(report.target)}, {plan.target_format.value}, {plan.target_layout} rows"),
        ("tensors", f"{tensors}, of which {plan.num_reordered} {verb} reordered"),
        *([("written", written)] if report.done else planned),
        ("copied as they are", ", ".join(map(code, report.copied_files)) or "nothing"),
        (
            "dropped",
            ", ".join(f"{code(d.name)} ({code(d.why)})" for d in plan.dropped) or "nothing",
        ),
    ]
    title = "## Conversion" if report.done else "## Conversion, planned only"
    return "\n".join([title, "", *_table(("", ""), rows), *_notes(plan.notes), "", _made()])


def inspection_markdown(inspection: Inspection) -> str:
    """What a checkpoint is."""
    geometry = inspection.geometry
    dtypes = ", ".join(f"{count} {dtype}" for dtype, count in inspection.dtypes)
    rows = [
        ("path", code(inspection.path)),
        ("format", inspection.format),
        ("family", code(inspection.family)),
        ("layout", f"{inspection.layout} rows"),
        ("layers", str(geometry.num_layers)),
        (
            "heads",
            (
                f"{geometry.num_heads} query, {geometry.num_kv_heads} key/value, of"
                f" {geometry.head_dim}"
            ),
        ),
        ("hidden size", str(geometry.hidden_size)),
        ("vocabulary", str(geometry.vocab_size)),
        ("rope", code(inspection.rotation)),
        ("weights", f"{inspection.num_parameters:,}: {dtypes}; {size(inspection.nbytes)}"),
    ]
    if inspection.detected is not None:
        rows.append(("weights say", code(inspection.detected.why)))
    return "\n".join(
        ["## Checkpoint", "", *_table(("", ""), rows), *_notes(inspection.notes), "", _made()]
    )


def kernel_markdown(report: KernelReport) -> str:
    """The kernel's checks on one machine."""
    words = "right" if report.passed else "wrong"
    rows = [
        (
            code(check.name),
            "passed" if check.passed else "**failed**",
            number(check.error),
            f"{'above' if check.control else 'at most'} {number(check.bound)}",
        )
        for check in report.checks
    ]
    lines = [
        "## Kernel",
        "",
        (
            f"**The Triton kernel is {words} on {code(report.device)}** (torch"
            f" {code(report.torch)}, Triton {code(report.triton)}, {code(report.backend)})."
        ),
        "",
        *_table(("check", "", "error", "must be"), rows),
    ]
    return "\n".join([*lines, "", _made()])


def code(text: object) -> str:
    """A code span that ends where it should.

    >>> print(code("a`b"), code("`"), code(""))
    ``a`b`` `` ` `` ` `
    """
    shown = printable(text) or " "
    fence = "`" * (_longest_run(shown) + 1)
    pad = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)


def _fenced(commands: Iterable[str]) -> list[str]:
    lines = [printable(command) for command in commands]
    if not lines:
        return []
    fence = "`" * max(3, *(_longest_run(line) + 1 for line in lines))
    return [f"{fence}sh", *lines, fence]


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Rows of cells. Renderers disagree on escaped pipes, so a pipe becomes an escape of ours."""
    table = [head, tuple("---" for _ in head), *rows]
    return [f"| {' | '.join(cell.replace('|', _PIPE) for cell in cells)} |" for cells in table]


def _notes(notes: Iterable[Note]) -> list[str]:
    lines = [f"- {note.kind}: {code(note.text)}" for note in notes]
    return ["", *lines] if lines else []


def _made() -> str:
    return f"Made by ropeconv {__version__}.\n"

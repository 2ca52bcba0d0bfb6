"""A verdict as one HTML page for whoever decides on a release: no script, no network, one file.

Everything that is not written in this package goes through `_text`: names and paths come from files
that nobody has checked. The page's own policy forbids scripts and connections besides.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING

from ropeconv.proof.judgement import SMALLEST_MARGIN
from ropeconv.proof.verdict import Outcome
from ropeconv.reports.figures import figures
from ropeconv.reports.markup import code, figure_number, prose, table, text
from ropeconv.reports.sentences import (
    CAVEAT,
    CONTROLS,
    CheckWords,
    advice,
    causes,
    checks,
    doubts,
    headline,
    not_looked_at,
    repair,
    verify_command,
    versions,
    weakest_controls,
)
from ropeconv.reports.text import counted
from ropeconv.version import __version__

if TYPE_CHECKING:
    from ropeconv.proof.verdict import Verdict

MOST_CAUSES = 100  # a page is read; JSON has them all

PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'">
<title>$title</title>
<style>
$style</style>
</head>
<body>
<main>
<p class="kicker">ropeconv verify checkpoint</p>
$body
</main>
</body>
</html>
""")

# each outcome has a shape of its own: a tick in a circle, a cross in an octagon, a triangle
ICONS = {
    Outcome.SAME: '<circle cx="12" cy="12" r="10"/><path d="M7 12.5l3.5 3.5L17 9"/>',
    Outcome.DIFFERENT: '<path d="M8 2h8l6 6v8l-6 6H8l-6-6V8z"/><path d="M8.5 8.5l7 7m0-7l-7 7"/>',
    Outcome.INCONCLUSIVE: '<path d="M12 2.5l10 18H2z"/><path d="M12 9.5v5m0 2.5v.6"/>',
    Outcome.NOT_RUN: '<circle cx="12" cy="12" r="10" stroke-dasharray="4 3"/><path d="M8 12h8"/>',
}
CHECK_TITLES = {
    "bytes": "Weights",
    "config": "Configuration",
    "scores": "Attention scores",
    "logits": "Logits of the whole model",
}


def verdict_html(verdict: Verdict) -> str:
    """A proof."""
    sections = (
        _top(verdict),
        _checks(checks(verdict)),
        _doubts(verdict),
        _wrong(verdict),
        _compared(verdict),
        *figures(verdict.scores),
        _controls(verdict),
        _unseen(verdict),
        _foot(verdict),
    )
    return PAGE.substitute(
        title=text(f"{verdict.target.path.name}: {headline(verdict)}"),
        style=files("ropeconv.reports").joinpath("page.css").read_text(encoding="utf-8"),
        body="\n".join(section for section in sections if section),
    )


def _icon(outcome: Outcome) -> str:
    return (
        '<svg viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="2"'
        f' stroke-linecap="round" stroke-linejoin="round" aria-hidden="true">{ICONS[outcome]}</svg>'
    )


def _kind(outcome: Outcome) -> str:
    return outcome.value.replace(" ", "-")


def _top(verdict: Verdict) -> str:
    target, source = verdict.target.layout, verdict.source.layout
    caveat = f"This holds {CAVEAT}: the target {target} rows, the source {source} rows."
    caveat = caveat if verdict.outcome is Outcome.SAME else ""
    return (
        f'<header class="verdict {_kind(verdict.outcome)}">{_icon(verdict.outcome)}<div>'
        f"<h1>{text(headline(verdict))}</h1>"
        f"<p>{text(f'{caveat} {advice(verdict)}'.strip())}</p></div></header>"
    )


def _checks(found: Iterable[CheckWords]) -> str:
    items = []
    for check in found:
        why = f'<p class="why">{prose(check.why)}</p>' if check.why else ""
        items.append(
            f'<li><h3 class="{_kind(check.outcome)}">{_icon(check.outcome)}'
            f"{text(CHECK_TITLES[check.name])}: {check.outcome.value}</h3>"
            f"<p>{prose(check.facts)}</p>{why}</li>"
        )
    return f'<ul class="checks">{"".join(items)}</ul>'


def _doubts(verdict: Verdict) -> str:
    items = "".join(f"<li>{prose(said)}</li>" for said in doubts(verdict))
    return f'<h2>Why there is no verdict</h2><ul class="wrong">{items}</ul>' if items else ""


def _wrong(verdict: Verdict) -> str:
    found = causes(verdict)
    mend = repair(verdict)
    if not found and mend is None:
        return ""
    shown = [
        f"<li>{code(tensor)}: {prose(said)}</li>" if tensor else f"<li>{prose(said)}</li>"
        for tensor, said in found[:MOST_CAUSES]
    ]
    if len(found) > MOST_CAUSES:
        shown.append(
            f"<li>and {len(found) - MOST_CAUSES:,} more; a report in JSON has them all</li>"
        )
    lines = [
        "<h2>What is wrong, and the repair</h2>",
        f'<ul class="wrong">{"".join(shown)}</ul>' if shown else "",
    ]
    if mend:
        lines.append(f"<p>{text(mend.text)}</p>")
        commands = "\n".join(text(command) for command in mend.commands)
        lines.append(f"<pre>{commands}</pre>" if commands else "")
    return "\n".join(lines)


def _compared(verdict: Verdict) -> str:
    rows = {
        "folder": [code(side.path) for side in (verdict.target, verdict.source)],
        "format": [text(side.format) for side in (verdict.target, verdict.source)],
        "layout": [text(side.layout) for side in (verdict.target, verdict.source)],
        "family": [text(side.family) for side in (verdict.target, verdict.source)],
    }
    body = "".join(
        f'<tr><th scope="row">{name}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
        for name, cells in rows.items()
    )
    return (
        "<h2>What was compared</h2>"
        '<table class="sides"><thead><tr><th></th><th scope="col">target, in question</th>'
        f'<th scope="col">source, made from</th></tr></thead><tbody>{body}</tbody></table>'
    )


def _controls(verdict: Verdict) -> str:
    """What the score check saw of mistakes that were made on purpose."""
    found = weakest_controls(verdict.scores)
    if not found:
        return ""
    rows = []
    for name, difference, bound in found:
        times = difference / bound if bound else 0.0
        seen = Outcome.SAME if times >= SMALLEST_MARGIN else Outcome.INCONCLUSIVE
        words = "seen" if seen is Outcome.SAME else "not seen"
        rows.append(
            [
                f'<b>{text(name)}</b><br><span class="soft">{text(CONTROLS.get(name, ""))}</span>',
                figure_number(difference),
                figure_number(times),
                f'<span class="{_kind(seen)}">{_icon(seen)}</span> {words}',
            ]
        )
    head = ("planted mistake", "a score changes by", "times the bound", "")
    return (
        f"<h2>Would a mistake have been noticed?</h2><p>{counted(len(rows), 'mistake')} that people"
        " make were made on purpose, in every layer. Each must change a score by at least"
        f" {SMALLEST_MARGIN:g} times what rounding may cause; the smallest change of all layers"
        " counts.</p>" + table("Controls", head, rows, words=(0, 3), stack=True)
    )


def _unseen(verdict: Verdict) -> str:
    items = "".join(f"<li>{prose(said)}</li>" for said in not_looked_at(verdict))
    return f'<h2>What was not looked at</h2><ul class="wrong">{items}</ul>'


def _foot(verdict: Verdict) -> str:
    made = "".join(
        f"<div><dt>{text(name)}</dt><dd>{text(version)}</dd></div>"
        for name, version in versions(verdict)
    )
    return (
        f"<footer><dl>{made}</dl><p>Made by ropeconv {text(__version__)} with</p>"
        f"<pre>{text(verify_command(verdict))}</pre></footer>"
    )

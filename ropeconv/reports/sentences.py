"""What a verdict says, in sentences that every form of report shares.

Sentences are plain text. Those that quote tensor names or paths must still be escaped by the form.
"""

from __future__ import annotations

from dataclasses import dataclass
from shlex import quote
from typing import TYPE_CHECKING

from ropeconv.proof.verdict import Outcome
from ropeconv.reports.text import counted, number, numbers, size
from ropeconv.version import __version__

if TYPE_CHECKING:
    from ropeconv.proof.verdict import ExactCheck, LogitsCheck, ScoreCheck, Side, Verdict

RELAYOUTS = {"interleaved": "interleaved-to-half", "half-split": "half-to-interleaved"}
CAVEAT = "under the layouts that both declare"
CONTROLS = {
    "not reordered": "the rows of q and k are left as they were",
    "wrong direction": "rows are reordered in the opposite direction",
    "reordered twice": "a reorder is applied to rows that were reordered before",
    "only q reordered": "the rows of k are forgotten",
    "only k reordered": "the rows of q are forgotten",
    "another theta": "the rotation has another base",
    "matrix as one head": "rows are reordered across heads, as if there were one",
    "wrong head count": "rows are reordered with twice as many heads",
}


@dataclass(frozen=True, kw_only=True)
class CheckWords:
    """One check: its name, what it found, and on what."""

    name: str
    outcome: Outcome
    facts: str
    why: str = ""  # of anything but the same


@dataclass(frozen=True, kw_only=True)
class Repair:
    """What to do about a difference."""

    text: str
    commands: tuple[str, ...]


def headline(verdict: Verdict) -> str:
    """The verdict in one sentence."""
    return {
        Outcome.SAME: "The two checkpoints are the same model.",
        Outcome.DIFFERENT: "The two checkpoints are not the same model.",
    }.get(
        verdict.outcome,
        "It could not be shown that the two checkpoints are the same model.",
    )


def advice(verdict: Verdict) -> str:
    """What the verdict means for a release."""
    layout = verdict.target.layout
    return {
        Outcome.SAME: f"Whoever runs the target must rotate {layout} rows, as its format declares.",
        Outcome.DIFFERENT: "Do not release the target. What is wrong, and the repair, stand below.",
    }.get(
        verdict.outcome,
        "Nothing differs, but a check had no power: it would not have noticed a mistake. This is"
        " not a pass: do not release the target unless someone who knows the model has looked.",
    )


def checks(verdict: Verdict) -> tuple[CheckWords, ...]:
    """Each check in words."""
    exact, config, scores = verdict.exact, verdict.config, verdict.scores
    found = [
        CheckWords(
            name="bytes",
            outcome=exact.outcome,
            facts=f"{counted(exact.num_tensors, 'tensor')}, {size(exact.nbytes)};"
            f" {exact.num_reordered} of them compared in their new row order",
            why=_why_exact(exact),
        ),
        CheckWords(
            name="config",
            outcome=config.outcome,
            facts=f"{counted(config.num_frequencies, 'rotary frequency').replace('ys', 'ies')}"
            " in float64, geometry, norms",
            why="; ".join(f"{finding.tensor}: {finding.text}" for finding in config.findings),
        ),
        CheckWords(
            name="scores", outcome=scores.outcome, facts=_score_facts(scores), why=scores.why
        ),
    ]
    if verdict.logits is not None:
        found.append(_logits_words(verdict.logits))
    return tuple(found)


def _why_exact(exact: ExactCheck) -> str:
    if exact.diagnosis:
        return "; ".join(exact.diagnosis)
    if exact.findings:
        first = exact.findings[0]
        more = len(exact.findings) - 1
        return f"{first.tensor}: {first.text}" + (f"; and {more} more" if more else "")
    return ""


def _score_facts(scores: ScoreCheck) -> str:
    if not scores.layers:
        return "no layer was compared"
    looked = f"{len(scores.layers)} of {counted(scores.num_layers, 'layer')}"
    found = f"{looked} at {counted(scores.num_positions, 'position')}"
    found += f" up to {scores.largest_position:,}"
    if scores.computed:
        worst = max(scores.computed, key=lambda layer: layer.max_difference)
        largest = number(worst.max_difference) if worst.max_difference else "exactly 0"
        found += f"; largest difference {largest}, rounding may cause {number(worst.bound)}"
    return "; ".join((found, *without_numbers(scores)))


def without_numbers(scores: ScoreCheck) -> tuple[str, ...]:
    """Which layers' scores could not be computed, and whose fault it is; nothing if all could."""
    said = []
    for side, finite in (("source", False), ("target", True)):
        layers = [one.layer for one in scores.layers if not one.groups and one.finite is finite]
        if layers:
            where = f"layer{'' if len(layers) == 1 else 's'} {numbers(layers)}"
            said.append(f"in {where} the {side}'s projections hold NaN or infinity")
    return tuple(said)


def _logits_words(logits: LogitsCheck) -> CheckWords:
    error = f"rms error {number(logits.rms_error)}, float32 may cause {number(logits.bound)}"
    same = logits.outcome is Outcome.SAME
    return CheckWords(
        name="logits",
        outcome=logits.outcome,
        facts=f"{counted(logits.num_tokens, 'token')}; loss {logits.source_loss:.4f} in"
        f" {logits.source_runtime}, {logits.target_loss:.4f} in {logits.target_runtime}; same best"
        f" token {logits.argmax_agreement:.1%}; {error}",
        why="" if same else error,
    )


def doubts(verdict: Verdict) -> tuple[str, ...]:
    """Why there is no verdict, where there is none."""
    unsure = (Outcome.INCONCLUSIVE, Outcome.NOT_RUN)
    if verdict.outcome not in unsure:
        return ()
    return tuple(
        f"{check.name}: {check.why or check.outcome.value}"
        for check in checks(verdict)
        if check.outcome in unsure
    )


def causes(verdict: Verdict) -> tuple[tuple[str, str], ...]:
    """Everything wrong, named mistakes first: a tensor or nothing, and a sentence."""
    named = [("", sentence) for sentence in verdict.exact.diagnosis]
    rest = [
        (finding.tensor, finding.text)
        for finding in verdict.findings
        if finding.tensor not in verdict.exact.named
    ]
    return (*named, *rest)


def repair(verdict: Verdict) -> Repair | None:
    """The commands that make a right target, where the verdict is that this one is wrong."""
    if verdict.outcome is not Outcome.DIFFERENT:
        return None
    source = str(verdict.source.path)
    direction = _direction(verdict.source, verdict.target)
    if not direction:
        return Repair(text="Copy the source again: it is in the target's form.", commands=())
    convert = f"ropeconv convert {direction} {quote(source)} NEW"
    verify = f"ropeconv verify checkpoint NEW --against {quote(source)}"
    if verdict.described:
        convert = f"ropeconv convert {direction} {quote(source)} NEW --family FILE"
        verify = f"ropeconv verify checkpoint NEW --against {quote(source)} --family FILE"
    return Repair(
        text="Convert the source again into a new folder NEW, with the options that the first"
        " conversion had, and prove it:",
        commands=(convert, verify),
    )


def _direction(source: Side, target: Side) -> str:
    """The conversion between two forms; empty where they are one."""
    if source.format != target.format:
        return f"{source.format}-to-{target.format}"
    if source.layout == target.layout:
        return ""
    return RELAYOUTS.get(source.layout, "")


def verify_command(verdict: Verdict) -> str:
    """What was run, but for its options."""
    target, source = (quote(str(side.path)) for side in (verdict.target, verdict.source))
    return f"ropeconv verify checkpoint {target} --against {source}"


def not_looked_at(verdict: Verdict) -> tuple[str, ...]:
    """What the verdict says nothing about."""
    said = [
        (
            "Whether the source is itself a good model, or in the layout that it declares: the"
            " proof compares the target with it."
        ),
        "Tokenizer, chat template and generation settings, token ids and context length.",
    ]
    if verdict.described:
        said.append(
            "Whether the user's description of the rows is right: both sides were read by it, and"
            " ropeconv has no table of the model type."
        )
    if verdict.own_code:
        said.append(
            "The code that comes with the checkpoint (`auto_map`): it may rotate otherwise than the"
            " program that ropeconv's table is measured on."
        )
    scores = verdict.scores
    looked = {layer.layer for layer in scores.layers}
    left = [layer for layer in range(scores.num_layers) if layer not in looked]
    if left:
        said.append(f"Attention scores of layers {numbers(left)}; their bytes were compared.")
    if looked:
        said.append(
            "Other key heads than one of each layer, for the controls and for what happens when all"
            " positions move; differences were measured on every head."
        )
    if verdict.logits is None:
        said.append(
            "Both models as a whole: `ropeconv verify checkpoint --logits` runs them and compares"
            " their logits."
        )
    return tuple(said)


def versions(verdict: Verdict) -> tuple[tuple[str, str], ...]:
    """What computed the verdict."""
    scores = verdict.scores
    where = (("scores", f"{scores.backend} on {scores.device}"),) if scores.backend else ()
    return (("ropeconv", __version__), *scores.versions, *where)


def weakest_controls(scores: ScoreCheck) -> tuple[tuple[str, float, float], ...]:
    """Each planted mistake with its smallest difference over all layers, and the bound there."""
    weakest: dict[str, tuple[float, float]] = {}
    for layer in scores.layers:
        for control in layer.controls:
            found = (control.difference, layer.bound)
            known = weakest.get(control.name, found)
            weakest[control.name] = min(known, found, key=lambda one: one[0] / (one[1] or 1))
    return tuple((name, *found) for name, found in weakest.items())

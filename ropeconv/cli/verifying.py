"""What `ropeconv verify ...` does: calls the story, and shows its verdict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ropeconv.cli.progress import progress_of
from ropeconv.cli.speech import Speech
from ropeconv.cli.stopwatch import Stopwatch
from ropeconv.cli.styles import Styled, bad, good, unsure
from ropeconv.moving.effort import Effort
from ropeconv.proof.verdict import Finding, LogitsCheck, Outcome, ScoreCheck, Verdict
from ropeconv.reports.forms import timed
from ropeconv.reports.sentences import repair, without_numbers
from ropeconv.reports.text import size
from ropeconv.story.describing import described_family
from ropeconv.story.verification import LogitsRequest, check_this_machine, verify
from ropeconv.thinking.config_map import Said
from ropeconv.words.errors import ExitCode
from ropeconv.words.model import Note

if TYPE_CHECKING:
    from ropeconv.kernels.selfcheck import KernelReport

# what the commands say is made of these
__all__ = ["LogitsRequest", "Said", "check_and_show", "verify_and_show"]

MAX_SHOWN = 5
MARGIN = " " * 9  # as wide as the names of the lines

WORDS = {
    Outcome.SAME: good("same"),
    Outcome.DIFFERENT: bad("different"),
    Outcome.INCONCLUSIVE: unsure("inconclusive"),
    Outcome.NOT_RUN: unsure("not run"),
}


def verify_and_show(
    speech: Speech,
    target: Path,
    source: Path,
    *,
    said: Said,
    layers: Sequence[int] | None,
    sample: int | None,
    logits: LogitsRequest | None,
    look: bool,
    family: Path | None,
    effort: Effort,
) -> None:
    """Prove, show, and exit with what was found."""
    described = None if family is None else described_family(family)
    with progress_of(speech) as progress:
        watch = Stopwatch(progress)
        verdict = verify(
            target,
            source,
            said=said,
            layers=layers,
            sample=sample,
            logits=logits,
            look=look,
            described=described,
            effort=effort,
            listen=watch,
        )
    speech.forms = timed(speech.forms, watch.seconds)
    speech.machine(verdict)
    _show(speech, verdict)
    speech.notes(Note(kind="own-code", text=text) for text in verdict.own_code)
    if (mend := repair(verdict)) is not None:
        speech.hint(f"repair: {mend.text}", *(f"  {command}" for command in mend.commands))
    if verdict.exit_code:
        raise SystemExit(int(verdict.exit_code))


def check_and_show(speech: Speech) -> None:
    """Prove the kernel, show its checks, and exit with what was found."""
    found = check_this_machine()
    speech.machine(found)
    _show_kernel(speech, found)
    if not found.passed:
        raise SystemExit(int(ExitCode.DIFFERENT))


def _show_kernel(speech: Speech, found: KernelReport) -> None:
    where = "Triton" if found.backend == "cuda" else "Triton interpreter"
    speech.result(f"kernel   {where} {found.triton} on {found.device}, torch {found.torch}")
    checks = [check for check in found.checks if not check.control]
    controls = [check for check in found.checks if check.control]
    worst = max(checks, key=lambda check: check.error / check.bound if check.bound else check.error)
    weakest = min(controls, key=lambda check: check.error)
    speech.result(
        f"checks   {sum(check.passed for check in checks)} of {len(checks)} right; closest to its"
        f" bound: {worst.name}, error {worst.error:.2g} of {worst.bound:.2g}"
    )
    speech.result(
        f"controls {sum(check.passed for check in controls)} of {len(controls)} planted mistakes"
        f" seen; weakest: {weakest.name}, {weakest.error:.2g}"
    )
    for check in found.checks:
        if not check.passed:
            speech.result(
                MARGIN,
                bad("-"),
                f" {check.name}: error {check.error:.3g}, bound {check.bound:.3g} ({check.reason})",
            )
    words = good("right") if found.passed else bad("wrong")
    speech.result("verdict  the kernel is ", words, " on this machine")


def _show(speech: Speech, verdict: Verdict) -> None:
    exact, config, scores = verdict.exact, verdict.config, verdict.scores
    for name, side in (("target", verdict.target), ("source", verdict.source)):
        speech.result(f"{name}   {side.path} ({side.format}, {side.layout})")
    speech.result(
        "bytes    ",
        WORDS[exact.outcome],
        f": {exact.num_tensors} tensors, {exact.num_reordered} after their row order,"
        f" {size(exact.nbytes)}",
    )
    for sentence in exact.diagnosis[:MAX_SHOWN]:
        speech.result(MARGIN, bad("mistake:"), f" {sentence}")
    _show_findings(speech, [f for f in exact.findings if f.tensor not in exact.named])
    speech.result(
        "config   ",
        WORDS[config.outcome],
        f": {config.num_frequencies} rotary frequencies in float64, geometry, norms",
    )
    _show_findings(speech, config.findings)
    if scores.layers:
        _show_scores(speech, scores)
    if verdict.logits is not None:
        _show_logits(speech, verdict.logits)
    if scores.why:
        speech.result(MARGIN, scores.why)
    speech.result("verdict  ", *_verdict_words(verdict))


def _show_scores(speech: Speech, scores: ScoreCheck) -> None:
    looked = f"{len(scores.layers)} of {scores.num_layers} layers"
    said = [f"{looked} at {scores.num_positions} positions up to {scores.largest_position:,}"]
    if scores.computed:
        worst = max(scores.computed, key=lambda layer: layer.max_difference)
        said.append(
            f"largest difference {worst.max_difference:.3g} (rounding may cause {worst.bound:.2g})"
        )
    words = ", ".join((*said, *without_numbers(scores)))
    speech.result("scores   ", WORDS[scores.outcome], f": {words}")
    if all(layer.controls for layer in scores.layers):
        words = f"wrong variants differ by {scores.weakest_margin:,.0f} times the bound or more"
    else:
        words = "could not be run on every layer"
    speech.result(f"controls {words} ({scores.backend} on {scores.device})")


def _show_logits(speech: Speech, logits: LogitsCheck) -> None:
    speech.result(
        "logits   ",
        WORDS[logits.outcome],
        f": {logits.num_tokens} tokens, loss {logits.source_loss:.4f} in {logits.source_runtime},"
        f" {logits.target_loss:.4f} in {logits.target_runtime}; KL {logits.mean_kl:.2g},"
        f" same best token {logits.argmax_agreement:.1%}",
    )
    speech.result(
        MARGIN,
        f"rms error {logits.rms_error:.2g} against float64, float32 may cause {logits.bound:.2g}",
    )


def _show_findings(speech: Speech, findings: Sequence[Finding]) -> None:
    """What has no name of its own, as far as it fits a screen."""
    for finding in findings[:MAX_SHOWN]:
        speech.result(MARGIN, bad("-"), f" `{finding.tensor}`: {finding.text}")
    if len(findings) > MAX_SHOWN:
        speech.result(MARGIN, f"and {len(findings) - MAX_SHOWN} more; --report has them all")


def _verdict_words(verdict: Verdict) -> tuple[Styled, str]:
    under = ", under the rows that the user describes" if verdict.described else ""
    return {
        Outcome.SAME: (good("the same model"), f", under the layouts that both declare{under}"),
        Outcome.DIFFERENT: (bad("not the same model"), ""),
    }.get(verdict.outcome, (unsure("inconclusive"), ": nothing differs, but a check had no power"))

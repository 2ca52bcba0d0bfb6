"""`ropeconv verify ...`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from ropeconv.cli.options import (
    ContextLength,
    Debug,
    Jobs,
    Json,
    Layers,
    NoColor,
    Quiet,
    Report,
    RopeFactor,
    Sample,
    Theta,
    parse_layers,
)
from ropeconv.cli.speech import Speech, gigabytes, progress_of, speaking
from ropeconv.moving.execute import Effort, default_jobs
from ropeconv.proof.verdict import Finding, LogitsCheck, Outcome, Verdict
from ropeconv.reports.forms import KERNEL, VERDICT
from ropeconv.story.verification import LogitsRequest, check_this_machine, verify
from ropeconv.thinking.config_map import Said
from ropeconv.words.errors import ExitCode

if TYPE_CHECKING:
    from ropeconv.kernels.selfcheck import KernelReport

EPILOG = (
    "Exit codes: 0 the same model, 1 not the same model, 2 wrong usage, 3 inconclusive,"
    " 4 unreadable, 5 refused."
)
MAX_SHOWN = 5

app = typer.Typer(help="Prove things; a check without power never passes.", no_args_is_help=True)

WORDS = {
    Outcome.SAME: "[green]same[/]",
    Outcome.DIFFERENT: "[bold red]different[/]",
    Outcome.INCONCLUSIVE: "[yellow]inconclusive[/]",
    Outcome.NOT_RUN: "[yellow]not run[/]",
}


@app.callback()
def _verify() -> None:
    """Prove things; a check without power never passes."""


@app.command("checkpoint", epilog=EPILOG)
def checkpoint(
    target: Annotated[Path, typer.Argument(metavar="DST", help="Checkpoint in question.")],
    *,
    against: Annotated[
        Path, typer.Option("--against", metavar="SRC", help="Checkpoint that it was made from.")
    ],
    theta: Theta = None,
    rope_factor: RopeFactor = None,
    context_length: ContextLength = None,
    layers: Layers = None,
    sample: Sample = None,
    logits: Annotated[
        bool, typer.Option("--logits", help="Also run both models as a whole, and compare logits.")
    ] = False,
    text: Annotated[
        Path | None,
        typer.Option("--text", metavar="FILE", help="Text for --logits; else random tokens."),
    ] = None,
    jobs: Jobs = None,
    json: Json = False,
    report: Report = None,
    quiet: Quiet = False,
    no_color: NoColor = False,
    debug: Debug = False,
) -> None:
    """Prove that two checkpoints are the same model, under the layouts that they declare.

    Every byte is compared after its row order; then both go through one Triton kernel, each in its
    own layout with its own angles, and all attention scores are compared. Each check is also run on
    wrong variants, which must fail.
    """
    speech = Speech(
        json=json, quiet=quiet, report=report, debug=debug, no_color=no_color, forms=VERDICT
    )
    with speaking(speech):
        with progress_of(speech) as listen:
            verdict = verify(
                target,
                against,
                said=Said(theta=theta, rope_factor=rope_factor, context_length=context_length),
                layers=parse_layers(layers),
                sample=sample,
                logits=LogitsRequest(text=text) if logits or text else None,
                effort=Effort(jobs=jobs or default_jobs()),
                listen=listen,
            )
        speech.machine(verdict)
        _show(speech, verdict)
        if verdict.outcome is Outcome.DIFFERENT:
            command = "meta-to-hf" if verdict.target.format == "hf" else "hf-to-meta"
            speech.hint(
                f"repair: convert again: ropeconv convert {command} {quote(str(against))} NEW"
            )
        if verdict.exit_code:
            raise typer.Exit(int(verdict.exit_code))


@app.command("kernel", epilog="Exit codes: 0 right, 1 wrong, 5 no Triton here, 70 a bug.")
def kernel(
    *,
    json: Json = False,
    report: Report = None,
    quiet: Quiet = False,
    no_color: NoColor = False,
    debug: Debug = False,
) -> None:
    """Prove the Triton kernel on this machine: against float64, with planted mistakes.

    On a GPU where there is one, else in Triton's interpreter; the report says which.
    """
    speech = Speech(
        json=json, quiet=quiet, report=report, debug=debug, no_color=no_color, forms=KERNEL
    )
    with speaking(speech):
        found = check_this_machine()
        speech.machine(found)
        _show_kernel(speech, found)
        if not found.passed:
            raise typer.Exit(int(ExitCode.DIFFERENT))


def _show_kernel(speech: Speech, found: KernelReport) -> None:
    where = "Triton" if found.backend == "cuda" else "Triton interpreter"
    speech.result(
        f"kernel   {where} {found.triton} on {escape(found.device)}, torch {escape(found.torch)}"
    )
    checks = [check for check in found.checks if not check.control]
    controls = [check for check in found.checks if check.control]
    worst = max(checks, key=lambda check: check.error / check.bound if check.bound else check.error)
    weakest = min(controls, key=lambda check: check.error)
    speech.result(
        f"checks   {sum(check.passed for check in checks)} of {len(checks)} right; closest to its"
        f" bound: {escape(worst.name)}, error {worst.error:.2g} of {worst.bound:.2g}"
    )
    speech.result(
        f"controls {sum(check.passed for check in controls)} of {len(controls)} planted mistakes"
        f" seen; weakest: {escape(weakest.name)}, {weakest.error:.2g}"
    )
    for check in found.checks:
        if not check.passed:
            speech.result(
                f"         [red]-[/] {escape(check.name)}: error {check.error:.3g}, bound"
                f" {check.bound:.3g} ({escape(check.reason)})"
            )
    words = "[bold green]right[/]" if found.passed else "[bold red]wrong[/]"
    speech.result(f"verdict  the kernel is {words} on this machine")


def _show(speech: Speech, verdict: Verdict) -> None:
    exact, config, scores = verdict.exact, verdict.config, verdict.scores
    speech.result(
        f"target   {escape(str(verdict.target.path))} ({verdict.target.format},"
        f" {verdict.target.layout})"
    )
    speech.result(
        f"source   {escape(str(verdict.source.path))} ({verdict.source.format},"
        f" {verdict.source.layout})"
    )
    speech.result(
        f"bytes    {WORDS[exact.outcome]}: {exact.num_tensors} tensors, {exact.num_reordered}"
        f" after their row order, {gigabytes(exact.nbytes)}"
    )
    for sentence in exact.diagnosis[:MAX_SHOWN]:
        speech.result(f"         [red]mistake:[/] {escape(sentence)}")
    _show_findings(speech, [f for f in exact.findings if f.tensor not in exact.named])
    speech.result(
        f"config   {WORDS[config.outcome]}: {config.num_frequencies} rotary frequencies in"
        " float64, geometry, norms"
    )
    _show_findings(speech, config.findings)
    if scores.layers:
        worst = max(scores.layers, key=lambda layer: layer.max_difference)
        speech.result(
            f"scores   {WORDS[scores.outcome]}: {len(scores.layers)} of {scores.num_layers} layers"
            f" at {scores.num_positions} positions up to {scores.largest_position:,}, largest"
            f" difference {scores.max_difference:.3g} (rounding may cause {worst.bound:.2g})"
        )
        could = all(layer.controls for layer in scores.layers)
        words = f"wrong variants differ by {scores.weakest_margin:,.0f} times the bound or more"
        speech.result(
            f"controls {words if could else 'could not be run'} ({scores.backend} on"
            f" {scores.device})"
        )
    if verdict.logits is not None:
        _show_logits(speech, verdict.logits)
    if scores.why:
        speech.result(f"         {escape(scores.why)}")
    speech.result(f"verdict  {_verdict_words(verdict)}")


def _show_logits(speech: Speech, logits: LogitsCheck) -> None:
    speech.result(
        f"logits   {WORDS[logits.outcome]}: {logits.num_tokens} tokens, loss"
        f" {logits.source_loss:.4f} in {logits.source_runtime}, {logits.target_loss:.4f} in"
        f" {logits.target_runtime};"
        f" KL {logits.mean_kl:.2g}, same best token {logits.argmax_agreement:.1%}"
    )
    speech.result(
        f"         rms error {logits.rms_error:.2g} against float64, float32 may cause"
        f" {logits.bound:.2g}"
    )


def _show_findings(speech: Speech, findings: Sequence[Finding]) -> None:
    """What has no name of its own, as far as it fits a screen."""
    for finding in findings[:MAX_SHOWN]:
        speech.result(f"         [red]-[/] `{escape(finding.tensor)}`: {escape(finding.text)}")
    if len(findings) > MAX_SHOWN:
        speech.result(f"         and {len(findings) - MAX_SHOWN} more; --report has them all")


def _verdict_words(verdict: Verdict) -> str:
    return {
        Outcome.SAME: "[bold green]the same model[/], under the layouts that both declare",
        Outcome.DIFFERENT: "[bold red]not the same model[/]",
    }.get(
        verdict.outcome, "[bold yellow]inconclusive[/]: nothing differs, but a check had no power"
    )

"""`ropeconv verify ...`: what can be said. `verifying` does it, and is imported when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ropeconv.cli.groups import help_if_alone
from ropeconv.cli.options import (
    ContextLength,
    Debug,
    FamilyFile,
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
from ropeconv.cli.speech import Speech, speaking
from ropeconv.moving.effort import Effort, default_jobs
from ropeconv.reports.forms import KERNEL, VERDICT

EPILOG = (
    "Exit codes: 0 the same model, 1 not the same model, 2 wrong usage, 3 inconclusive,"
    " 4 unreadable, 5 refused."
)
app = typer.Typer(
    help="Prove things; a check without power never passes.",
    callback=help_if_alone,
    invoke_without_command=True,
)


@app.command(
    "checkpoint", epilog=EPILOG, short_help="Prove that two checkpoints are the same model."
)
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
    trust_declared_layout: Annotated[
        bool,
        typer.Option(
            "--trust-declared-layout",
            help="Do not ask the weights whether their layout is the one that SRC declares.",
        ),
    ] = False,
    logits: Annotated[
        bool,
        typer.Option("--logits", help="Also run both models, layer by layer, and compare logits."),
    ] = False,
    text: Annotated[
        Path | None,
        typer.Option("--text", metavar="FILE", help="Text for --logits; else random tokens."),
    ] = None,
    family: FamilyFile = None,
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
        from ropeconv.cli.verifying import LogitsRequest, Said, verify_and_show

        verify_and_show(
            speech,
            target,
            against,
            said=Said(theta=theta, rope_factor=rope_factor, context_length=context_length),
            layers=parse_layers(layers),
            sample=sample,
            logits=LogitsRequest(text=text) if logits or text else None,
            look=not trust_declared_layout,
            family=family,
            effort=Effort(jobs=jobs or default_jobs()),
        )


@app.command(
    "kernel",
    epilog="Exit codes: 0 right, 1 wrong, 5 no Triton here, 70 a bug.",
    short_help="Prove the Triton kernel on this machine.",
)
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
        from ropeconv.cli.verifying import check_and_show

        check_and_show(speech)

"""`ropeconv convert ...`."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer
from rich.markup import escape

from ropeconv.cli.options import (
    ContextLength,
    Debug,
    Jobs,
    Json,
    Quiet,
    Report,
    RopeFactor,
    Theta,
    parse_size,
)
from ropeconv.cli.speech import Speech, gigabytes, progress_of, speaking
from ropeconv.moving.execute import Effort, default_jobs
from ropeconv.reports.json_report import conversion_json
from ropeconv.story.conversion import ConversionReport, HfOptions, MetaOptions, convert
from ropeconv.thinking.config_map import Said
from ropeconv.thinking.to_meta import WeightsFile

EPILOG = (
    "Exit codes: 0 done, 2 wrong usage, 4 source, 5 refused, 6 target, 70 bug, 130 interrupted."
)

app = typer.Typer(
    help="Convert a checkpoint into a new folder, by moving rows of bytes.", no_args_is_help=True
)

Source = Annotated[Path, typer.Argument(metavar="SRC", help="Folder of the checkpoint.")]
Target = Annotated[Path, typer.Argument(metavar="DST", help="Folder to make.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Plan and check only; write nothing.")]
AllowDrift = Annotated[
    bool,
    typer.Option(
        "--allow-replica-drift",
        help="Take rank 0's norms although other ranks differ by more than released models do.",
    ),
]


@app.command("meta-to-hf", epilog=EPILOG)
def meta_to_hf(
    source: Source,
    target: Target,
    *,
    max_shard_size: Annotated[
        str, typer.Option("--max-shard-size", metavar="SIZE", help="Largest safetensors file.")
    ] = "5GB",
    theta: Theta = None,
    rope_factor: RopeFactor = None,
    context_length: ContextLength = None,
    allow_replica_drift: AllowDrift = False,
    dry_run: DryRun = False,
    jobs: Jobs = None,
    json: Json = False,
    report: Report = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Meta format with interleaved rows to Hugging Face format with half-split rows.

    SRC holds params.json and consolidated weights, in any number of ranks. DST gets config.json,
    safetensors and the side files.
    """
    speech = Speech(json=json, quiet=quiet, report=report, debug=debug)
    with speaking(speech):
        said = Said(theta=theta, rope_factor=rope_factor, context_length=context_length)
        options = HfOptions(max_shard_nbytes=parse_size(max_shard_size))
        with progress_of(speech) as listen:
            done = convert(
                source,
                target,
                options,
                said=said,
                allow_drift=allow_replica_drift,
                effort=Effort(jobs=jobs or default_jobs()),
                dry_run=dry_run,
                listen=listen,
            )
        _show(speech, done, _said_options(said))


@app.command("hf-to-meta", epilog=EPILOG)
def hf_to_meta(
    source: Source,
    target: Target,
    *,
    mp: Annotated[
        int,
        typer.Option("--mp", metavar="N", min=1, max=4096, help="Model-parallel ranks to write."),
    ] = 1,
    weights: Annotated[
        WeightsFile | None,
        typer.Option("--weights", help="Kind of file; by default that of the family's releases."),
    ] = None,
    rope_freqs: Annotated[
        bool | None,
        typer.Option(
            "--rope-freqs/--no-rope-freqs",
            help="Write the table rope.freqs; by default where Llama 1 and 2 have it.",
        ),
    ] = None,
    dry_run: DryRun = False,
    jobs: Jobs = None,
    json: Json = False,
    report: Report = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Hugging Face format with half-split rows to Meta format with interleaved rows.

    SRC holds config.json and safetensors. DST gets params.json, consolidated weights and the side
    files.
    """
    speech = Speech(json=json, quiet=quiet, report=report, debug=debug)
    with speaking(speech):
        with progress_of(speech) as listen:
            done = convert(
                source,
                target,
                MetaOptions(num_ranks=mp, weights=weights, rope_freqs=rope_freqs),
                effort=Effort(jobs=jobs or default_jobs()),
                dry_run=dry_run,
                listen=listen,
            )
        _show(speech, done, "")


def _said_options(said: Said) -> str:
    words = (
        ("--theta", said.theta),
        ("--rope-factor", said.rope_factor),
        ("--context-length", said.context_length),
    )
    return "".join(f" {name} {value:g}" for name, value in words if value is not None)


def _show(speech: Speech, done: ConversionReport, said: str) -> None:
    plan = done.plan
    speech.machine(conversion_json(done))
    speech.notes(plan.notes)
    for dropped in plan.dropped if not speech.quiet else ():
        speech.err.print(
            f"[dim]dropped:[/dim] `{escape(dropped.name)}`: {escape(dropped.why)}",
            highlight=False,
            soft_wrap=True,
        )
    tensors = len(plan.moves) - len(plan.source.side_files)
    moved = (
        f"{tensors} tensors, {plan.num_reordered} of them reordered from {plan.source_layout}"
        f" to {plan.target_layout} rows"
    )
    if not done.done:
        for file in plan.files:
            speech.result(f"{gigabytes(file.nbytes):>12}  {escape(file.name)}")
        for small in plan.small_files:
            speech.result(f"{gigabytes(len(small.text.encode())):>12}  {escape(small.name)}")
        memory = done.effort.jobs * plan.largest_block_nbytes(done.effort.block_nbytes)
        speech.result(
            f"would read {gigabytes(plan.read_nbytes)}, write {gigabytes(plan.target_nbytes)},"
            f" with buffers of {gigabytes(memory)}: {moved}"
        )
        return
    speech.result(
        f"[green]converted[/] {escape(str(done.source))} to {escape(str(done.target))}:"
        f" {gigabytes(plan.target_nbytes)}, {moved}"
    )
    paths = f"{quote(str(done.target))} --against {quote(str(done.source))}"
    speech.hint(f"next: ropeconv verify checkpoint {escape(paths)}{said}")

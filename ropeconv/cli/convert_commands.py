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
    Hash,
    IoKind,
    Jobs,
    Json,
    NoColor,
    Overwrite,
    Quiet,
    Report,
    Restart,
    RopeFactor,
    Sync,
    Theta,
    parse_size,
)
from ropeconv.cli.speech import Speech, gigabytes, progress_of, speaking
from ropeconv.cli.stopping import stopping
from ropeconv.moving.effort import Effort, Io, default_jobs
from ropeconv.reports.forms import CONVERSION
from ropeconv.story.conversion import ConversionReport, Handling, HfOptions, MetaOptions, convert
from ropeconv.story.relayout import described_family, relayout, relayout_in_place
from ropeconv.thinking.config_map import Said
from ropeconv.thinking.to_meta import WeightsFile
from ropeconv.words.errors import UsageError
from ropeconv.words.layout import HALF_SPLIT, INTERLEAVED, RopeLayout

EPILOG = (
    "Exit codes: 0 done, 2 wrong usage, 4 source, 5 refused, 6 target, 70 bug, 130 interrupted."
)

app = typer.Typer(
    help="Convert a checkpoint into a new folder, by moving rows of bytes.", no_args_is_help=True
)

Source = Annotated[Path, typer.Argument(metavar="SRC", help="Folder of the checkpoint.")]
Target = Annotated[Path, typer.Argument(metavar="DST", help="Folder to make.")]
TargetOrNone = Annotated[
    Path | None, typer.Argument(metavar="DST", help="Folder to make; none with --in-place.")
]
InPlace = Annotated[
    bool,
    typer.Option(
        "--in-place", help="Rewrite the rows of SRC where they lie; a kill at any instant is safe."
    ),
]
TrustDeclared = Annotated[
    bool,
    typer.Option(
        "--trust-declared-layout",
        help="Go on although the weights look as if they were in another layout than declared.",
    ),
]
FamilyFile = Annotated[
    Path | None,
    typer.Option(
        "--family", metavar="FILE", help="TOML description of a model type without a table."
    ),
]
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
    trust_declared_layout: TrustDeclared = False,
    dry_run: DryRun = False,
    overwrite: Overwrite = False,
    restart: Restart = False,
    hashes: Hash = False,
    jobs: Jobs = None,
    io: IoKind = Io.AUTO,
    sync: Sync = True,
    json: Json = False,
    report: Report = None,
    quiet: Quiet = False,
    no_color: NoColor = False,
    debug: Debug = False,
) -> None:
    """Meta format with interleaved rows to Hugging Face format with half-split rows.

    SRC holds params.json and consolidated weights, in any number of ranks. DST gets config.json,
    safetensors and the side files.
    """
    speech = Speech(
        json=json, quiet=quiet, report=report, debug=debug, no_color=no_color, forms=CONVERSION
    )
    with speaking(speech):
        said = Said(theta=theta, rope_factor=rope_factor, context_length=context_length)
        options = HfOptions(max_shard_nbytes=parse_size(max_shard_size))
        with progress_of(speech) as listen, stopping() as stop:
            done = convert(
                source,
                target,
                options,
                said=said,
                allow_drift=allow_replica_drift,
                effort=Effort(jobs=jobs or default_jobs(), io=io, sync=sync),
                handling=Handling(overwrite=overwrite, restart=restart, hashes=hashes),
                look=not trust_declared_layout,
                dry_run=dry_run,
                listen=listen,
                stop=stop,
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
    trust_declared_layout: TrustDeclared = False,
    dry_run: DryRun = False,
    overwrite: Overwrite = False,
    restart: Restart = False,
    hashes: Hash = False,
    jobs: Jobs = None,
    io: IoKind = Io.AUTO,
    sync: Sync = True,
    json: Json = False,
    report: Report = None,
    quiet: Quiet = False,
    no_color: NoColor = False,
    debug: Debug = False,
) -> None:
    """Hugging Face format with half-split rows to Meta format with interleaved rows.

    SRC holds config.json and safetensors. DST gets params.json, consolidated weights and the side
    files.
    """
    speech = Speech(
        json=json, quiet=quiet, report=report, debug=debug, no_color=no_color, forms=CONVERSION
    )
    with speaking(speech):
        with progress_of(speech) as listen, stopping() as stop:
            done = convert(
                source,
                target,
                MetaOptions(num_ranks=mp, weights=weights, rope_freqs=rope_freqs),
                effort=Effort(jobs=jobs or default_jobs(), io=io, sync=sync),
                handling=Handling(overwrite=overwrite, restart=restart, hashes=hashes),
                look=not trust_declared_layout,
                dry_run=dry_run,
                listen=listen,
                stop=stop,
            )
        _show(speech, done, "")


@app.command("interleaved-to-half", epilog=EPILOG)
def interleaved_to_half(
    source: Source,
    target: TargetOrNone = None,
    *,
    in_place: InPlace = False,
    family: FamilyFile = None,
    trust_declared_layout: TrustDeclared = False,
    dry_run: DryRun = False,
    overwrite: Overwrite = False,
    restart: Restart = False,
    hashes: Hash = False,
    jobs: Jobs = None,
    io: IoKind = Io.AUTO,
    sync: Sync = True,
    json: Json = False,
    report: Report = None,
    quiet: Quiet = False,
    no_color: NoColor = False,
    debug: Debug = False,
) -> None:
    """Interleaved rows to half-split rows, within Hugging Face's format.

    Only rotary rows move: names, order and places of everything else stay, so that file systems
    with reflinks share the rest.
    """
    _relayout(
        source,
        target,
        HALF_SPLIT,
        in_place=in_place,
        family=family,
        handling=Handling(overwrite=overwrite, restart=restart, hashes=hashes),
        effort=Effort(jobs=jobs or default_jobs(), io=io, sync=sync),
        look=not trust_declared_layout,
        dry_run=dry_run,
        speech=Speech(
            json=json, quiet=quiet, report=report, debug=debug, no_color=no_color, forms=CONVERSION
        ),
    )


@app.command("half-to-interleaved", epilog=EPILOG)
def half_to_interleaved(
    source: Source,
    target: TargetOrNone = None,
    *,
    in_place: InPlace = False,
    family: FamilyFile = None,
    trust_declared_layout: TrustDeclared = False,
    dry_run: DryRun = False,
    overwrite: Overwrite = False,
    restart: Restart = False,
    hashes: Hash = False,
    jobs: Jobs = None,
    io: IoKind = Io.AUTO,
    sync: Sync = True,
    json: Json = False,
    report: Report = None,
    quiet: Quiet = False,
    no_color: NoColor = False,
    debug: Debug = False,
) -> None:
    """Half-split rows to interleaved rows, within Hugging Face's format.

    Only rotary rows move: names, order and places of everything else stay, so that file systems
    with reflinks share the rest.
    """
    _relayout(
        source,
        target,
        INTERLEAVED,
        in_place=in_place,
        family=family,
        handling=Handling(overwrite=overwrite, restart=restart, hashes=hashes),
        effort=Effort(jobs=jobs or default_jobs(), io=io, sync=sync),
        look=not trust_declared_layout,
        dry_run=dry_run,
        speech=Speech(
            json=json, quiet=quiet, report=report, debug=debug, no_color=no_color, forms=CONVERSION
        ),
    )


def _relayout(
    source: Path,
    target: Path | None,
    layout: RopeLayout,
    *,
    in_place: bool,
    family: Path | None,
    handling: Handling,
    effort: Effort,
    look: bool,
    dry_run: bool,
    speech: Speech,
) -> None:
    with speaking(speech):
        if in_place == (target is not None):
            raise UsageError(
                what="give either a folder to make or --in-place",
                why="--in-place changes SRC itself" if in_place else "",
                fix="name DST, or add --in-place to rewrite the rows of SRC where they lie",
            )
        if in_place and handling != Handling():
            raise UsageError(
                what="--in-place does not go with --overwrite, --restart or --hash",
                why="they are about a new folder, and in place there is none",
                fix="leave them out; a run that was interrupted goes on with the same command",
            )
        described = None if family is None else described_family(family)
        with progress_of(speech) as listen, stopping() as stop:
            if target is None:
                done = relayout_in_place(
                    source,
                    layout,
                    described=described,
                    look=look,
                    dry_run=dry_run,
                    listen=listen,
                    stop=stop,
                )
            else:
                done = relayout(
                    source,
                    target,
                    layout,
                    effort=effort,
                    handling=handling,
                    described=described,
                    look=look,
                    dry_run=dry_run,
                    listen=listen,
                    stop=stop,
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
    speech.machine(done)
    speech.notes(plan.notes)
    for dropped in plan.dropped if not speech.quiet else ():
        speech.err.print(
            f"[dim]dropped:[/dim] `{escape(dropped.name)}`: {escape(dropped.why)}",
            highlight=False,
            soft_wrap=True,
        )
    moved = (
        f"{plan.num_tensors} tensors, {plan.num_reordered} of them reordered"
        f" from {plan.source_layout} to {plan.target_layout} rows"
    )
    if not done.done:
        for name, nbytes in done.written_files:
            speech.result(f"{gigabytes(nbytes):>12}  {escape(name)}")
        needs = done.needs
        speech.result(
            f"would read {gigabytes(needs.read_nbytes)}, write {gigabytes(needs.written_nbytes)},"
            f" take at most {gigabytes(needs.memory_nbytes)} of memory: {moved}"
        )
        speech.result(
            f"would need {gigabytes(needs.disk_nbytes)} of disk,"
            f" {gigabytes(needs.disk_free_nbytes)} are free"
        )
        return
    if done.target == done.source:
        speech.result(f"[green]rewrote[/] the rows of {escape(str(done.source))}: {moved}")
        return  # the older form is gone: there is nothing to compare with
    speech.result(
        f"[green]converted[/] {escape(str(done.source))} to {escape(str(done.target))}:"
        f" {gigabytes(plan.target_nbytes)}, {moved}"
    )
    paths = f"{quote(str(done.target))} --against {quote(str(done.source))}"
    speech.hint(f"next: ropeconv verify checkpoint {escape(paths)}{said}")

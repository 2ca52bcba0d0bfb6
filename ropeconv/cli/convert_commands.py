"""`ropeconv convert ...`: what can be said. `converting` does it, and is imported when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ropeconv.cli.groups import help_if_alone
from ropeconv.cli.options import (
    ContextLength,
    Debug,
    FamilyFile,
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
from ropeconv.cli.speech import Speech, speaking
from ropeconv.moving.effort import Effort, Io, default_jobs
from ropeconv.reports.forms import CONVERSION
from ropeconv.words.errors import UsageError
from ropeconv.words.model import WeightsFile
from ropeconv.words.parts import Part

EPILOG = (
    "Exit codes: 0 done, 2 wrong usage, 4 source, 5 refused, 6 target, 70 bug, 130 interrupted."
)

ROWS_ONLY = (
    "Only rotary rows move: names, order and places of everything else stay, so that file systems"
    " with reflinks share the rest."
)
app = typer.Typer(
    help="Convert a checkpoint into a new folder, by moving rows of bytes.",
    callback=help_if_alone,
    invoke_without_command=True,
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
Parts = Annotated[
    list[Part] | None,
    typer.Option(
        "--part",
        metavar="text|vision|audio",
        help="Part of the model whose rows move; text if not said, and again for further ones."
        " A tower stays unless it is named.",
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


@app.command("meta-to-hf", epilog=EPILOG, short_help="Meta's format to Hugging Face's.")
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
        from ropeconv.cli.converting import Handling, HfOptions, Said, convert_and_show

        convert_and_show(
            speech,
            source,
            target,
            HfOptions(max_shard_nbytes=parse_size(max_shard_size)),
            said=Said(theta=theta, rope_factor=rope_factor, context_length=context_length),
            allow_drift=allow_replica_drift,
            effort=Effort(jobs=jobs or default_jobs(), io=io, sync=sync),
            handling=Handling(overwrite=overwrite, restart=restart, hashes=hashes),
            look=not trust_declared_layout,
            dry_run=dry_run,
        )


@app.command("hf-to-meta", epilog=EPILOG, short_help="Hugging Face's format to Meta's.")
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
        from ropeconv.cli.converting import Handling, MetaOptions, Said, convert_and_show

        convert_and_show(
            speech,
            source,
            target,
            MetaOptions(num_ranks=mp, weights=weights, rope_freqs=rope_freqs),
            said=Said(),
            allow_drift=False,
            effort=Effort(jobs=jobs or default_jobs(), io=io, sync=sync),
            handling=Handling(overwrite=overwrite, restart=restart, hashes=hashes),
            look=not trust_declared_layout,
            dry_run=dry_run,
        )


def _add_relayout(name: str, layout: str, *, short_help: str, title: str) -> None:
    """Add a command that moves rows into that layout: one for each direction, alike but for it."""

    def relayout(
        source: Source,
        target: TargetOrNone = None,
        *,
        in_place: InPlace = False,
        part: Parts = None,
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
        speech = Speech(
            json=json, quiet=quiet, report=report, debug=debug, no_color=no_color, forms=CONVERSION
        )
        with speaking(speech):
            from ropeconv.cli.converting import LAYOUTS, Handling, relayout_and_show

            _check_place(target, in_place=in_place, new_folder_only=overwrite or restart or hashes)
            relayout_and_show(
                speech,
                source,
                target,
                LAYOUTS[layout],
                family=family,
                parts=part or [Part.TEXT],
                effort=Effort(jobs=jobs or default_jobs(), io=io, sync=sync),
                handling=Handling(overwrite=overwrite, restart=restart, hashes=hashes),
                look=not trust_declared_layout,
                dry_run=dry_run,
            )

    app.command(name, epilog=EPILOG, short_help=short_help, help=f"{title}\n\n{ROWS_ONLY}")(
        relayout
    )


def _check_place(target: Path | None, *, in_place: bool, new_folder_only: bool) -> None:
    """Either a new folder, with what goes with one, or the source itself."""
    if in_place == (target is not None):
        raise UsageError(
            what="give either a folder to make or --in-place",
            why="--in-place changes SRC itself" if in_place else "",
            fix="name DST, or add --in-place to rewrite the rows of SRC where they lie",
        )
    if in_place and new_folder_only:
        raise UsageError(
            what="--in-place does not go with --overwrite, --restart or --hash",
            why="they are about a new folder, and in place there is none",
            fix="leave them out; a run that was interrupted goes on with the same command",
        )


_add_relayout(
    "interleaved-to-half",
    "half-split",
    short_help="Rows only, within Hugging Face's format.",
    title="Interleaved rows to half-split rows, within Hugging Face's format.",
)
_add_relayout(
    "half-to-interleaved",
    "interleaved",
    short_help="Rows only, the other way.",
    title="Half-split rows to interleaved rows, within Hugging Face's format.",
)

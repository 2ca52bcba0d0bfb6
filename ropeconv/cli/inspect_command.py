"""`ropeconv inspect`: what can be said. `inspecting` does it, and is imported when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ropeconv.cli.options import Debug, FamilyFile, Json, NoColor, Quiet, Report
from ropeconv.cli.speech import Speech, speaking
from ropeconv.reports.forms import INSPECTION


def inspect_path(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Folder of a checkpoint.")],
    *,
    look: Annotated[
        bool,
        typer.Option(
            "--look/--no-look", help="Read q and k too, and say what layout they seem to have."
        ),
    ] = True,
    family: FamilyFile = None,
    json: Json = False,
    quiet: Quiet = False,
    no_color: NoColor = False,
    report: Report = None,
    debug: Debug = False,
) -> None:
    """Say what a checkpoint is: format, family, geometry, declared and detected layout."""
    speech = Speech(
        json=json, quiet=quiet, report=report, debug=debug, no_color=no_color, forms=INSPECTION
    )
    with speaking(speech):
        from ropeconv.cli.inspecting import inspect_and_show

        inspect_and_show(speech, path, look=look, family=family)

"""`ropeconv families`: what can be said. `explaining` does it, and is imported when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from ropeconv.cli.options import Debug, Json, NoColor, Quiet, Report
from ropeconv.cli.speech import Speech, speaking
from ropeconv.words.errors import UsageError

FORMS = {".json": str}  # the only form of these results: they are dictated as JSON


def families(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Model type, as in config.json.")
    ] = None,
    *,
    probe: Annotated[
        str | None,
        typer.Option(
            "--probe",
            metavar="MODEL_TYPE",
            help="Measure the rotation of the installed transformers, and compare; `lacking` lists"
            " the model types that write text or rotate, and that nothing here knows.",
        ),
    ] = None,
    json: Json = False,
    report: Report = None,
    quiet: Quiet = False,
    debug: Debug = False,
    no_color: NoColor = False,
) -> None:
    """List the supported families, explain how each tensor of one is treated, or measure one."""
    speech = Speech(
        json=json, quiet=quiet, report=report, debug=debug, no_color=no_color, forms=FORMS
    )
    with speaking(speech):
        from ropeconv.cli.explaining import explain_and_show, list_and_show, probe_and_show

        if probe is not None and name is not None:
            raise UsageError(
                what="both a name and --probe are given",
                fix="explain with a name, measure with --probe",
            )
        if probe is not None:
            probe_and_show(speech, probe)
        elif name is not None:
            explain_and_show(speech, name)
        else:
            list_and_show(speech)

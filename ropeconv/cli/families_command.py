"""`ropeconv families`."""

from __future__ import annotations

import json as json_text
from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from ropeconv.cli.options import Debug, Json, NoColor, Quiet, Report
from ropeconv.cli.speech import Speech, speaking
from ropeconv.reports.json_report import SCHEMA
from ropeconv.story.families import Explanation, explain, list_families, list_refused
from ropeconv.version import __version__
from ropeconv.words.errors import ExitCode, UsageError


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
            " the model types that no table knows.",
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
        if probe is not None:
            if name is not None:
                raise UsageError(
                    what="both a name and --probe are given",
                    fix="explain with a name, measure with --probe",
                )
            _probe(speech, probe)
        elif name is None:
            _list(speech)
        else:
            _explain(speech, explain(name))


# the only form of these results: they are dictated as JSON below
FORMS = {".json": str}


def _machine(speech: Speech, kind: str, body: dict[str, object]) -> None:
    speech.machine(
        json_text.dumps({"schema": SCHEMA, "type": kind, "ropeconv": __version__, **body})
    )


def _list(speech: Speech) -> None:
    known = list_families()
    refused = list_refused()
    _machine(
        speech,
        "families",
        {
            "families": [asdict(line) for line in known],
            "refused": [{"name": name, "why": why} for name, why in refused],
        },
    )
    if speech.json:
        return
    table = Table(box=None, pad_edge=False)
    for title in ("model type", "title", "layout", "other layout"):
        table.add_column(title, overflow="fold")
    for line in known:
        table.add_row(escape(line.name), escape(line.title), line.layout or "-", escape(line.other))
    speech.out.print(table, highlight=False)
    speech.result("\nknown and refused:")
    for name, why in refused:
        speech.result(f"  {escape(name)}: {escape(why)}")
    speech.hint("next: ropeconv families NAME explains each tensor of one")


def _explain(speech: Speech, found: Explanation) -> None:
    _machine(speech, "family", asdict(found))
    if found.refused:
        speech.result(f"{escape(found.name)} is refused: {escape(found.refused)}")
        return
    speech.result(
        f"{escape(found.title)} (`{escape(found.name)}`)"
        + (f": {found.layout} rows" if found.layout else "")
    )
    if not found.measured and found.layout:
        speech.result("its code is not in transformers: the layout was read, not measured")
    if found.moves:
        speech.result("\nrows that move:")
    for line in found.moves:
        where = f" where {line.layers}" if line.layers else ""
        speech.result(f"  {escape(line.name)}{escape(where)}")
        speech.result(f"      {escape(line.rows)}: {escape(line.why)}")
    speech.result("\nstays:")
    for line in found.stays:
        speech.result(f"  {escape(line.name)}: {escape(line.why)}")
    if found.sizes:
        speech.result("\nsizes, from config.json:")
    for letter, formula in found.sizes:
        speech.result(f"  {letter} = {escape(formula)}")
    for formula, why in found.needs:
        speech.result(f"refused unless {escape(formula)}: {escape(why)}")
    speech.result(f"\n{escape(found.runtime)}")


def _probe(speech: Speech, model_type: str) -> None:
    from ropeconv.proof.family_probe import lacking, probe  # noqa: PLC0415 - torch when needed

    try:
        if model_type == "lacking":
            names = lacking()
            _machine(speech, "lacking", {"model_types": list(names)})
            for name in names:
                speech.result(escape(name))
            return
        found = probe(model_type)
    except ImportError as error:
        raise UsageError(
            what="--probe needs transformers, which cannot be imported",
            why=str(error),
            fix="install ropeconv[transformers]",
        ) from error
    _machine(
        speech,
        "probe",
        {
            "model_type": model_type,
            "known": found.is_known,
            "agrees": found.agrees,
            "projections": [
                {
                    "name": one.name,
                    "layout": one.layout,
                    "rotated": one.num_rotated,
                    "rows": len(one.partners),
                    "agrees": one.agrees,
                }
                for one in found.measured
            ],
        },
    )
    for one in found.measured:
        sign = "=" if one.agrees else "!" if found.is_known else " "
        rows = f"{one.num_rotated} of {len(one.partners)} rows rotate"
        speech.result(f"{sign} {escape(one.name)}: {rows}, {one.layout}")
    if not found.measured:
        speech.result(f"{escape(model_type)}: no rotation was found")
        raise typer.Exit(int(ExitCode.INCONCLUSIVE))
    if not found.is_known:
        speech.result(f"{escape(model_type)} is not in the table")
        raise typer.Exit(int(ExitCode.INCONCLUSIVE))
    if not found.agrees:
        speech.result(f"{escape(model_type)}: the table differs from transformers")
        raise typer.Exit(int(ExitCode.DIFFERENT))
    speech.result(f"{escape(model_type)}: the table agrees with transformers")

"""`ropeconv inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from ropeconv.cli.options import Debug, Json, NoColor, Quiet, Report
from ropeconv.cli.speech import Speech, gigabytes, speaking
from ropeconv.reports.forms import INSPECTION
from ropeconv.story.detection import Detected
from ropeconv.story.inspection import Inspection, inspect


def inspect_path(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Folder of a checkpoint.")],
    *,
    look: Annotated[
        bool,
        typer.Option(
            "--look/--no-look", help="Read q and k too, and say what layout they seem to have."
        ),
    ] = True,
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
        found = inspect(path, look=look)
        speech.machine(found)
        _show(speech, found)
        speech.notes(found.notes)


def _show(speech: Speech, found: Inspection) -> None:
    if speech.json:
        return
    geometry = found.geometry
    heads = f"{geometry.num_heads} query, {geometry.num_kv_heads} key/value, of {geometry.head_dim}"
    sizes = f"hidden {geometry.hidden_size}, intermediate {geometry.intermediate_size}"
    sizes += f", vocabulary {geometry.vocab_size}"
    dtypes = ", ".join(f"{count} {dtype}" for dtype, count in found.dtypes)
    theta = "not stated" if found.theta is None else f"{found.theta:g}"
    files = f"{found.num_weight_files} file{'s' if found.num_weight_files > 1 else ''}"
    ranks = f", {found.num_ranks} ranks" if found.num_ranks > 1 else ""
    origin = "its stamp" if found.stamp else "format and family"
    rows = [
        ("format", f"{found.format}, {files}{ranks}, {gigabytes(found.nbytes)}"),
        ("family", found.family),
        ("layout", f"{found.layout} rows, by {origin}"),
        ("layers", str(geometry.num_layers)),
        ("heads", heads),
        ("sizes", sizes),
        ("rope", f"theta {theta}, scaling {found.scaling}"),
        ("tensors", f"{found.num_parameters:,} parameters in {found.num_tensors}: {dtypes}"),
    ]
    if found.detected is not None:
        rows.insert(3, ("weights say", _seen(found.layout, found.detected)))
    if found.embedding_split:
        rows.append(("embedding", f"split by {found.embedding_split}"))
    if found.dropped:
        rows.append(("tables", ", ".join(found.dropped)))
    if found.side_files:
        rows.append(("side files", ", ".join(found.side_files)))
    if not speech.out.is_terminal:
        for name, text in rows:
            speech.result(f"{name:<13}{escape(text)}")
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, text in rows:
        table.add_row(name, escape(text))
    speech.out.print(table, highlight=False)


def _seen(declared: str, detected: Detected) -> str:
    """What the weights say, and whether that fits the declared layout."""
    if not detected.conclusive:
        return detected.why
    if detected.layout != declared:
        return f"NOT {declared}: {detected.why}"
    numbers = f"z {detected.z:.1f}, margin {detected.margin:.1f}, {detected.num_heads} key heads"
    return f"{detected.layout}, as declared: evidence, not proof ({numbers})"

"""What `ropeconv families` does: calls the story, and shows what is supported."""

from __future__ import annotations

import json
from dataclasses import asdict

from ropeconv.cli.speech import Speech
from ropeconv.reports.json_report import SCHEMA
from ropeconv.story.explanation import explain
from ropeconv.story.families import list_families, list_refused
from ropeconv.version import __version__
from ropeconv.words.errors import ExitCode, UsageError
from ropeconv.words.model import Note


def _machine(speech: Speech, kind: str, body: dict[str, object]) -> None:
    speech.machine(json.dumps({"schema": SCHEMA, "type": kind, "ropeconv": __version__, **body}))


def list_and_show(speech: Speech) -> None:
    """Every family."""
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
    rows = [(line.name, line.title, line.layout or "-", line.other) for line in known]
    speech.columns(("model type", "title", "layout", "other layout"), rows)
    speech.result()
    speech.result("known and refused:")
    for name, why in refused:
        speech.result(f"  {name}: {why}")
    speech.hint("next: ropeconv families NAME explains each tensor of one")


def explain_and_show(speech: Speech, name: str) -> None:
    """How each tensor of one family is treated."""
    found = explain(name)
    _machine(speech, "family", asdict(found))
    if found.refused:
        speech.result(f"{found.name} is refused: {found.refused}")
        return
    speech.result(
        f"{found.title} (`{found.name}`)" + (f": {found.layout} rows" if found.layout else "")
    )
    if found.layout and found.measured_by != "transformers":
        speech.result(f"its code is not in transformers: measured against {found.measured_by}'s")
    if found.moves:
        speech.result()
        speech.result("rows that move:")
    for line in found.moves:
        where = f" where {line.layers}" if line.layers else ""
        speech.result(f"  {line.name}{where}")
        speech.result(f"      {line.rows}: {line.why}")
    speech.result()
    speech.result("stays:")
    for line in found.stays:
        speech.result(f"  {line.name}: {line.why}")
    if found.towers:
        speech.result()
        speech.result("stays too, unless --part asks for it; explained by its own name:")
    for tower in found.towers:
        own = f"`{tower.name}`, {tower.layout} rows" if tower.name else f"as `{tower.key}` says"
        speech.result(f"  {tower.part}: {own}")
    if found.dropped:
        speech.result()
        speech.result("left out of the other format:")
    for line in found.dropped:
        speech.result(f"  {line.name}: {line.why}")
    if found.sizes:
        speech.result()
        speech.result("sizes, from config.json:")
    for letter, formula in found.sizes:
        speech.result(f"  {letter} = {formula}")
    if found.needs:
        speech.result()
        speech.result("refused unless, of config.json:")
    for formula, why in found.needs:
        speech.result(f"  {formula}")
        speech.result(f"      else: {why}")
    speech.result()
    if not found.layout:
        usual = f", usually `{found.language}`" if found.language else ""
        speech.result(found.runtime + usual)
        return
    speech.result("once they have moved:")
    for text in (found.runtime, *found.programs):
        speech.result(f"  {text}")


def probe_and_show(speech: Speech, model_type: str) -> None:
    """Measure the rotation in the installed transformers, and compare it with the table."""
    from ropeconv.proof.family_probe import lacking, probe

    try:
        if model_type == "lacking":
            names = lacking()
            _machine(speech, "lacking", {"model_types": list(names)})
            for name in names:
                speech.result(name)
            if not names:
                text = "every model type that writes text or rotates has a table or is refused"
                speech.notes((Note(kind="none", text=text),))
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
        speech.result(f"{sign} {one.name}: {rows}, {one.layout}")
    if not found.measured:
        speech.result(f"{model_type}: no rotation was found")
        raise SystemExit(int(ExitCode.INCONCLUSIVE))
    if not found.is_known:
        speech.result(f"{model_type} is not in the table")
        raise SystemExit(int(ExitCode.INCONCLUSIVE))
    if not found.agrees:
        speech.result(f"{model_type}: the table differs from transformers")
        raise SystemExit(int(ExitCode.DIFFERENT))
    speech.result(f"{model_type}: the table agrees with transformers")

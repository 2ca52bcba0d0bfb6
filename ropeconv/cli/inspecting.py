"""What `ropeconv inspect` does: calls the story, and shows what a checkpoint is."""

from __future__ import annotations

from pathlib import Path

from ropeconv.cli.speech import Speech
from ropeconv.reports.text import counted, size
from ropeconv.story.describing import described_family
from ropeconv.story.detection import Detected
from ropeconv.story.inspection import Inspection, inspect


def inspect_and_show(speech: Speech, path: Path, *, look: bool, family: Path | None) -> None:
    """Look at a checkpoint, and show it."""
    found = inspect(path, look=look, described=None if family is None else described_family(family))
    speech.machine(found)
    _show(speech, found)
    speech.notes(found.notes)


def _show(speech: Speech, found: Inspection) -> None:
    geometry = found.geometry
    heads = f"{geometry.num_heads} query, {geometry.num_kv_heads} key/value, of {geometry.head_dim}"
    named = (("intermediate", geometry.intermediate_size), ("vocabulary", geometry.vocab_size))
    stated = [f"{name} {count}" for name, count in named if count]
    sizes = ", ".join([f"hidden {geometry.hidden_size}", *stated])
    dtypes = ", ".join(f"{count} {dtype}" for dtype, count in found.dtypes)
    files = counted(found.num_weight_files, "file")
    ranks = f", {found.num_ranks} ranks" if found.num_ranks > 1 else ""
    origin = "its stamp" if found.stamp else "format and family"
    rows = [
        ("format", f"{found.format}, {files}{ranks}, {size(found.nbytes)}"),
        ("family", found.family),
        ("layout", f"{found.layout} rows, by {origin}"),
        ("layers", str(geometry.num_layers)),
        ("heads", heads),
        ("sizes", sizes),
        ("rope", found.rotation),
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
    speech.fields(rows)


def _seen(declared: str, detected: Detected) -> str:
    """What the weights say, and whether that fits the declared layout."""
    if not detected.conclusive:
        return detected.why
    if detected.layout != declared:
        return f"NOT {declared}: {detected.why}"
    numbers = f"z {detected.z:.1f}, margin {detected.margin:.1f}, {detected.num_heads} key heads"
    return f"{detected.layout}, as declared: evidence, not proof ({numbers})"

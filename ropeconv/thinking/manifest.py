"""ropeconv.json: what was produced, from what, and what the way back needs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from ropeconv.formats.folder import MANIFEST_SCHEMA, kept_entry
from ropeconv.formats.stamps import ManifestStamps, held_stamps
from ropeconv.thinking.plan import Plan
from ropeconv.version import __version__


def render_manifest(
    plan: Plan, hashes: Mapping[str, str], stamps: ManifestStamps | None = None
) -> str:
    """The manifest of a finished target. It holds no time and no path: equal runs, equal bytes.

    Args:
        plan: what was done; its digest is that of names, sizes and places, not of paths and times.
        hashes: SHA-256 of the files that moves filled, in hexadecimal, by name; may be empty.
        stamps: those that headers have no room for; None for the plan's, without sums.
    """
    source = plan.source
    is_same_format = source.format is plan.target_format
    files = [_entry(file.name, file.nbytes, hashes.get(file.name)) for file in plan.files]
    for small in plan.small_files:
        data = small.text.encode()
        digest = hashlib.sha256(data).hexdigest() if hashes else None
        files.append(_entry(small.name, len(data), digest))
    manifest = {
        "schema": MANIFEST_SCHEMA,
        "ropeconv": __version__,
        "family": plan.model.family,
        "source": {
            "format": source.format.value,
            "layout": plan.source_layout.name,
            "files": [{"name": file.name, "nbytes": file.nbytes} for file in source.files],
        },
        "target": {
            "format": plan.target_format.value,
            "layout": plan.target_layout.name,
            "files": files,
        },
        "parts": [part.value for part in plan.parts],
        "plan": plan.digest(),
        "reordered_tensors": plan.num_reordered,
        "notes": [{"kind": note.kind, "text": note.text} for note in plan.notes],
        "dropped": [{"name": drop.name, "why": drop.why} for drop in plan.dropped],
        "carried": {
            "config": source.carried.config if is_same_format else source.config,
            "embedding_split": source.carried.embedding_split
            if is_same_format
            else plan.embedding_split,
            "dropped": [kept_entry(kept) for kept in plan.kept or source.carried.dropped],
        },
    }
    stamps = stamps or plan.held
    if stamps is not None:
        manifest["stamps"] = held_stamps(stamps)
    return json.dumps(manifest, indent=2, sort_keys=True) + "\n"


def _entry(name: str, nbytes: int, sha256: str | None) -> dict[str, object]:
    entry: dict[str, object] = {"name": name, "nbytes": nbytes}
    return entry if sha256 is None else entry | {"sha256": sha256}

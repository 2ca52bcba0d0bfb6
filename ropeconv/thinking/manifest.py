"""ropeconv.json: what was produced, from what, and what the way back needs."""

from __future__ import annotations

import json

from ropeconv.formats.folder import MANIFEST_SCHEMA, kept_entry
from ropeconv.thinking.plan import Plan
from ropeconv.version import __version__


def render_manifest(plan: Plan) -> str:
    """The manifest of a finished target. It holds no time and no path: equal runs, equal bytes."""
    source = plan.source
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
            "files": [{"name": file.name, "nbytes": file.nbytes} for file in plan.files]
            + [{"name": f.name, "nbytes": len(f.text.encode())} for f in plan.small_files],
        },
        "reordered_tensors": plan.num_reordered,
        "notes": [{"kind": note.kind, "text": note.text} for note in plan.notes],
        "dropped": [{"name": drop.name, "why": drop.why} for drop in plan.dropped],
        "carried": {
            "config": source.config,
            "embedding_split": plan.embedding_split,
            "dropped": [kept_entry(kept) for kept in plan.kept],
        },
    }
    return json.dumps(manifest, indent=2, sort_keys=True) + "\n"

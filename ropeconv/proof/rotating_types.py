"""Which model types of the installed transformers rotate, by the text of their code.

Nothing of it is imported: some 500 modules would take a minute. A module that defines a rotation
says so in the name of a function or a class. Whether it is called is not known from that.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

# `apply_rotary_pos_emb`, `EsmRotaryEmbedding`, `rotate_queries_or_keys`, `RoPEAttention`; not
# `property`, nor `get_rope_index`, which wrappers of models that rotate have
ROTATION = re.compile(r"^\s*(?:def|class) \w*(?:[Rr]otary|rotate_|Ro[Pp][Ee])", re.MULTILINE)


def rotating_types() -> frozenset[str]:
    """Model types whose code defines a rotation, less those that are parts of another.

    A part's name begins with that of its whole, in the same folder: `mimi_encoder` of `mimi`.
    """
    from transformers.models.auto.auto_mappings import CONFIG_MAPPING_NAMES  # noqa: PLC0415
    from transformers.models.auto.configuration_auto import (  # noqa: PLC0415
        model_type_to_module_name,
    )

    spec = find_spec("transformers.models")
    assert spec is not None
    assert spec.origin is not None
    folders: dict[str, list[str]] = {}
    for name in CONFIG_MAPPING_NAMES:
        folders.setdefault(model_type_to_module_name(name), []).append(name)
    return frozenset(
        name
        for folder, names in folders.items()
        if _rotates(Path(spec.origin).parent / folder)
        for name in names
        if not name.startswith(tuple(f"{whole}_" for whole in names))
    )


def _rotates(folder: Path) -> bool:
    return any(ROTATION.search(path.read_text("utf-8")) for path in folder.glob("modeling_*.py"))

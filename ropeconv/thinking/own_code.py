"""Code that comes with a checkpoint (`auto_map` in its config), which is neither read nor run.

transformers runs it instead of its own class of the model type, if there is one, for whoever says
`trust_remote_code=True`. It may rotate otherwise, and then the table of the type is wrong for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ropeconv.formats.checkpoint import Checkpoint, parse_object
from ropeconv.knowledge.family import Family, Peer
from ropeconv.knowledge.formula import evaluate
from ropeconv.words.model import Format, Note

KIND = "own-code"
# `repository--module.Class`; tokenizers, processors and configs have keys of their own
_NAME = re.compile(r"[\w./\-]{1,120}")
_MODEL = "AutoModel"


def own_class(checkpoint: Checkpoint, family: Family) -> str:
    """The class that a checkpoint brings for its model; empty if it brings none.

    Args:
        checkpoint: as found on disk.
        family: the table, which knows where a language model's own config lies.
    """
    if checkpoint.format is not Format.HF:
        return ""
    config = parse_object(checkpoint.config, checkpoint.claims.origin)
    inner = evaluate(family.inner, config) if family.inner else None
    return _class_in(config) or _class_in(inner)


def _class_in(config: Any) -> str:  # noqa: ANN401 - a JSON value
    found = config.get("auto_map") if isinstance(config, Mapping) else None
    if not isinstance(found, Mapping):
        return ""
    names = {key: found[key] for key in sorted(found) if key.startswith(_MODEL)}
    if not names:
        return ""
    name = names.get("AutoModelForCausalLM") or next(iter(names.values()))
    return name if isinstance(name, str) and _NAME.fullmatch(name) else "auto_map"


def said_of_own_code(checkpoint: Checkpoint, family: Family) -> tuple[Note, ...]:
    """That the checkpoint brings code of its own, and what that means for a measured table."""
    own = own_class(checkpoint, family)
    if not own:
        return ()
    brings = f"the checkpoint brings code of its own, `{own}`, which is neither read nor run here"
    if family.measured_by is Peer.TRANSFORMERS:
        means = (
            f"transformers runs it with trust_remote_code=True, and its own {family.title}, for"
            " which rows are treated here, without"
        )
    else:
        means = f"rows are treated as {family.measured_by.value}'s {family.title} has them"
    return (
        Note(
            kind=KIND,
            text=f"{brings}: {means}; if it rotates otherwise, a description of its rows takes the"
            " table's place (docs/describing-a-family.md)",
        ),
    )

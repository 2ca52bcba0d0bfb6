"""Looks a family up by the model type that a config states."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from ropeconv.knowledge.families.alone import ALONE
from ropeconv.knowledge.families.composite import COMPOSITE, joined
from ropeconv.knowledge.families.dense import DENSE
from ropeconv.knowledge.families.encoders import ENCODERS
from ropeconv.knowledge.families.fused import FUSED
from ropeconv.knowledge.families.latent import LATENT
from ropeconv.knowledge.families.llama import LLAMA, MISTRAL
from ropeconv.knowledge.families.refused import REFUSED
from ropeconv.knowledge.families.remote import REMOTE
from ropeconv.knowledge.families.stacks import STACKS
from ropeconv.knowledge.families.towers import TOWERS
from ropeconv.knowledge.families.unusual import UNUSUAL
from ropeconv.knowledge.families.varied import VARIED
from ropeconv.knowledge.family import Family
from ropeconv.knowledge.formula import evaluate
from ropeconv.words.errors import BrokenFile, Unsupported

_SEVERAL = (*UNUSUAL, *STACKS, *ENCODERS, *ALONE)
_LANGUAGE = (LLAMA, MISTRAL, *DENSE, *FUSED, *LATENT, *VARIED, *_SEVERAL, *REMOTE)
FAMILIES = {family.name: family for family in (*_LANGUAGE, *COMPOSITE, *TOWERS)}


def find_family(name: str, origin: str) -> Family:
    """The table for a model type.

    Raises:
        Unsupported: no table knows it, or it is known that rows alone cannot be moved. A guess from
            a similar name would be wrong too often: `glm4` is interleaved and `glm4_moe`
            half-split.
    """
    family = FAMILIES.get(name)
    if family is not None:
        return family
    if name in REFUSED:
        raise Unsupported(
            what=f"`{origin}` is of the model type `{name}`, whose rows cannot be reordered",
            why=REFUSED[name],
        )
    close = get_close_matches(name, FAMILIES, n=3)
    alike = f", {', '.join(close)} among them" if close else ""
    raise Unsupported(
        what=f"`{origin}` is of the model type `{name[:60]}`, which ropeconv has no table for",
        why=f"{len(FAMILIES)} model types are known{alike}; similar names often have other layouts",
        fix="`ropeconv families` lists them; another one can be described, see"
        " docs/describing-a-family.md",
    )


def family_of(config: Mapping[str, Any], origin: str) -> Family:
    """The table for a config; that of the language model inside it for a composite model."""
    family = find_family(str(config.get("model_type")), origin)
    if not family.inner:
        return family
    inner = evaluate(family.inner, config) or config
    if not isinstance(inner, Mapping):
        raise BrokenFile(what=f"`{origin}` has a `{family.inner}` that is no object")
    flat = f"{family.name}_text"  # older files have the language model's keys at the top
    name = inner.get("model_type") if inner is not config else flat if flat in FAMILIES else None
    if not isinstance(name, str):
        raise BrokenFile(
            what=f"`{origin}` does not say the model type of its language model",
            why=f"expected `{family.inner}` with a `model_type`",
        )
    return joined(family, find_family(name, f"{origin}: {family.inner}"), config)

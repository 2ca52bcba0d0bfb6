"""Looks a family up by the model type that a config states."""

from __future__ import annotations

from ropeconv.knowledge.families.llama import LLAMA, MISTRAL
from ropeconv.knowledge.family import Family
from ropeconv.words.errors import Unsupported

FAMILIES = {family.name: family for family in (LLAMA, MISTRAL)}


def find_family(name: str, origin: str) -> Family:
    """The table for a model type.

    Raises:
        Unsupported: no table knows it. A guess from a similar name would be wrong too often: `glm4`
            is interleaved and `glm4_moe` half-split.
    """
    family = FAMILIES.get(name)
    if family is None:
        raise Unsupported(
            what=f"`{origin}` is of the model type `{name[:60]}`, which ropeconv has no table for",
            why=f"known are {', '.join(sorted(FAMILIES))}; similar names often have other layouts",
        )
    return family

"""Whether each layer that rotates has all of its projections.

Shapes do not show a file that is missing, and half of a layer moved is a silently wrong model.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from ropeconv.formats.checkpoint import Checkpoint
from ropeconv.knowledge.family import Family, Rule
from ropeconv.thinking.pairs import partner_of
from ropeconv.thinking.quantised import WEIGHTS
from ropeconv.thinking.sizes import Sizes
from ropeconv.thinking.treated import Treated
from ropeconv.words.errors import IncompleteSource

_TOGETHER = "queries and keys move together or the model is broken"
_FETCH = "download the missing files"
_NUMBER = re.compile("[0-9]+")


def check_complete(
    checkpoint: Checkpoint, family: Family, sizes: Sizes, treated: Sequence[Treated]
) -> None:
    """Every layer is there, and in each that rotates all projections are.

    Args:
        checkpoint: for errors.
        family: the table of one part of the model.
        sizes: its letters, with the numbers of the config.
        treated: the tensors of that part.

    Raises:
        IncompleteSource: something is missing.
    """
    stacks = _stacks(family, treated)
    if not stacks:
        raise IncompleteSource(
            what=f"`{checkpoint.root}` has no tensor that {family.title} rotates",
            why="either files are missing, or no layer of this config rotates",
        )
    for before, layers in stacks.items():
        for layer, present in sorted(layers.items()):
            for rule in family.rules:
                if family.may_lie(rule, before) and sizes.applies(rule, layer):
                    _check_rule(checkpoint, rule, layer, present)
        if before:
            _check_alike(checkpoint, before, layers, treated)
    for rule in family.rules:
        for layer in range(sizes.whole[rule.depth] if rule.depth else 0):
            there = [layers.get(layer, set()) for layers in stacks.values()]
            _check_rule(checkpoint, rule, layer, set().union(*there))
    _check_pairs(checkpoint, family, sizes, stacks, treated)
    whole = [rule for rule in family.rules if not rule.depth]
    starts = [one for one in stacks if one and any(family.may_lie(rule, one) for rule in whole)]
    seen = {layer for one in starts for layer, _, _ in _in_layers(one, treated)}
    if starts and (missing := sorted(set(range(sizes.whole["L"])) - seen)):
        raise IncompleteSource(
            what=f"layer {missing[0]} is missing from `{checkpoint.root}`",
            why=f"the config says {sizes.whole['L']} layers",
            fix=_FETCH,
        )


def _stacks(family: Family, treated: Iterable[Treated]) -> dict[str, dict[int, set[str]]]:
    """Names of rules with weights here, by layer, by what stands before the layer's number."""
    stacks: dict[str, dict[int, set[str]]] = {}
    for found in treated:
        if found.layer is not None and found.rule.rows and found.stored.name.endswith(WEIGHTS):
            layers = stacks.setdefault(_before(family, found), {})
            layers.setdefault(found.layer, set()).add(found.rule.name)
    return stacks


def _before(family: Family, found: Treated) -> str:
    starts = (found.stored.name[: match.start()] for match in _NUMBER.finditer(found.stored.name))
    return next((start for start in starts if family.may_lie(found.rule, start)), "")


def _in_layers(before: str, treated: Iterable[Treated]) -> Iterator[tuple[int, str, Treated]]:
    """The tensors of a stack, each with its layer and what stands behind the layer's number."""
    for found in treated:
        name = found.stored.name
        if name.startswith(before) and (number := _NUMBER.match(name, len(before))):
            yield int(number[0]), name[number.end() :], found


def _check_rule(checkpoint: Checkpoint, rule: Rule, layer: int, present: Collection[str]) -> None:
    if not rule.optional and rule.name not in present:
        raise IncompleteSource(
            what=f"layer {layer} of `{checkpoint.root}` has no tensor"
            f" `{rule.name.replace('{layer}', str(layer))}`",
            why=_TOGETHER,
            fix=_FETCH,
        )


def _check_pairs(
    checkpoint: Checkpoint,
    family: Family,
    sizes: Sizes,
    stacks: Mapping[str, Mapping[int, Collection[str]]],
    treated: Iterable[Treated],
) -> None:
    """Of a form that may be absent as a whole, neither half is."""
    for found in treated:
        other = partner_of(found.stored.name) if found.rule.rows else ""
        layers = stacks.get(_before(family, found), {}) if other.endswith(".weight") else {}
        for rule, layer in family.matches(other) if layers else ():
            if sizes.applies(rule, layer) and rule.name not in layers.get(layer, ()):
                raise IncompleteSource(
                    what=f"`{checkpoint.root}` has `{found.stored.name}` and no `{other}`",
                    why=_TOGETHER,
                    fix=_FETCH,
                )


def _check_alike(
    checkpoint: Checkpoint, before: str, moved: Collection[int], treated: Iterable[Treated]
) -> None:
    """A layer that has all which another has beside its rotary rows has rotary rows, too.

    So where a table has several forms of one projection, each of which may be absent.
    """
    beside: dict[int, set[str]] = {}
    for layer, behind, found in _in_layers(before, treated):
        beside.setdefault(layer, set())
        if not found.rule.rows:
            beside[layer].add(behind)
    of_moved = {frozenset(beside[layer]): layer for layer in moved}
    for layer in sorted(beside.keys() - set(moved)):
        if (like := of_moved.get(frozenset(beside[layer]))) is not None:
            raise IncompleteSource(
                what=f"`{before}{layer}` of `{checkpoint.root}` has no queries and keys",
                why=f"it has everything else that `{before}{like}` has",
                fix=_FETCH,
            )

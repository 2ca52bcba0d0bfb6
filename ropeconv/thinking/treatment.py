"""What a family's table says of each stored tensor: its rows, or why they stay.

Shapes are the truth: every rotary tensor must have exactly the rows that the config's sizes give,
and every other tensor must be one that the family is known to have.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ropeconv.formats.checkpoint import Checkpoint, StoredTensor, parse_object
from ropeconv.knowledge.family import Family, Rule, Tower, parse_rows
from ropeconv.knowledge.formula import evaluate, solve
from ropeconv.thinking.complete import check_complete
from ropeconv.thinking.quantised import Companion, companion, rows_of_companion
from ropeconv.thinking.sizes import Sizes, words_of
from ropeconv.thinking.treated import Treated
from ropeconv.words.errors import Contradiction, RowsError, Unsupported
from ropeconv.words.layout import (
    HALF_SPLIT,
    INTERLEAVED,
    Keep,
    RopeLayout,
    Rows,
    num_rows,
)
from ropeconv.words.model import Geometry, Note
from ropeconv.words.parts import Part


@dataclass(frozen=True, kw_only=True)
class _Table:
    """A family with the sizes of one model, for the tensors that begin in one of some ways."""

    part: Part
    family: Family
    names: Mapping[str, Any]
    sizes: Sizes
    bases: tuple[str, ...]


def treat(
    checkpoint: Checkpoint, family: Family, towers: Sequence[Tower] = ()
) -> tuple[Geometry, tuple[Treated, ...]]:
    """Every tensor of a Hugging Face checkpoint, in the order of its files.

    Args:
        checkpoint: as found on disk.
        family: the table of its text.
        towers: those that are treated by their own tables; tensors of others stay.

    Raises:
        Unsupported: a tensor or a setting that the family's table does not know.
        Contradiction: rows that do not fit the config.
        IncompleteSource: a layer, or one of the projections of a layer, is missing.
        NotSaid: a size that the config does not state.
    """
    config = parse_object(checkpoint.config, checkpoint.claims.origin)
    inner = evaluate(family.inner, config) if family.inner else None
    names = config
    if isinstance(inner, dict):  # how weights are quantised is said of the whole
        quantised = {"quantization_config": config.get("quantization_config")}
        names = {**dict(family.absent), **quantised, **inner}
    for formula, why in family.needs:
        if not evaluate(formula, {**names, **solve(family.sizes, names)}):
            raise Unsupported(what=f"`{checkpoint.root}` cannot be reordered", why=why)
    sizes = Sizes(family, names, checkpoint.claims.origin)
    main = _Table(part=Part.TEXT, family=family, names=names, sizes=sizes, bases=("",))
    chosen = [_table_of(tower, config, checkpoint.claims.origin) for tower in towers]
    others = [
        replace(main, part=tower.part, bases=tower.bases)
        for tower in family.towers
        if tower not in towers
    ]
    tables = [*chosen, *others, main]
    # companions first: they say why a weight cannot be moved, its shape only that it is not known
    found = {
        stored: _treat(stored, next(t for t in tables if stored.name.startswith(t.bases)))
        for stored in sorted(checkpoint.tensors, key=lambda stored: companion(stored.name) is None)
    }
    treated = tuple(found[stored] for stored in checkpoint.tensors)
    stray = [
        stored.name
        for stored, found in zip(checkpoint.tensors, treated, strict=True)
        if found is None
    ]
    if stray:
        raise Unsupported(
            what=f"`{checkpoint.root}` has {len(stray)} tensors that {family.title} does not have,"
            f" the first is `{stray[0][:120]}`",
            why="a tensor that is left out in silence is a different model",
            fix="check the model type; biases, norms or adapters mean another family",
        )
    known = [found for found in treated if found is not None]
    for table in (*chosen, main):
        own = [one for one in known if one.part is table.part]
        check_complete(checkpoint, table.family, table.sizes, own)
    geometry = Geometry(
        num_layers=sizes.whole["L"],
        hidden_size=sizes.whole["C"],
        num_heads=sizes.whole["H"],
        num_kv_heads=sizes.whole["K"],
        head_dim=sizes.whole["D"],
        intermediate_size=_integer(names.get("intermediate_size")),
        vocab_size=_integer(names.get("vocab_size")),
    )
    return geometry, tuple(known)


def _table_of(tower: Tower, config: Mapping[str, Any], origin: str) -> _Table:
    found = evaluate(tower.key, config)
    names = found if isinstance(found, dict) else {}
    assert tower.family is not None
    return _Table(
        part=tower.part,
        family=tower.family,
        names=names,
        sizes=Sizes(tower.family, names, f"{origin}: {tower.key}"),
        bases=tower.bases,
    )


def declared_layout(
    family: Family, config: Mapping[str, Any], stamp: RopeLayout | None, origin: str
) -> RopeLayout:
    """The layout by the family, and by the switch in the config where it has one.

    Raises:
        Contradiction: the switch and the stamp of an earlier conversion differ.
    """
    if not family.switch:
        return family.layout
    inner = evaluate(family.inner, config) if family.inner else None
    own = inner if isinstance(inner, dict) else config
    declared = HALF_SPLIT if own.get(family.switch) is False else INTERLEAVED
    if stamp is not None and stamp != declared:
        raise Contradiction(
            what=f"`{origin}` says {declared} rows by `{family.switch}`, the files are stamped"
            f" {stamp}",
            why="the switch tells the runtime how to rotate",
            fix="one of the two was edited; take the original",
        )
    return declared


def left_aside(family: Family, towers: Sequence[Tower]) -> tuple[Note, ...]:
    """Groups of tensors with a layout of their own, which no conversion of the others touches."""
    rules = tuple(
        Note(
            kind="kept",
            text=f"`{rule.name}` stays {rule.aside}: {rule.why}",
        )
        for rule in family.rules
        if rule.aside is not None
    )
    return rules + tuple(
        Note(
            kind="kept",
            text=f"the {tower.part.value} tower ({tower.family.title}) stays"
            f" {tower.family.layout}, as its own code rotates it",
        )
        for tower in family.towers
        if tower.family is not None and tower not in towers
    )


def stamped(tower: Tower, layout: RopeLayout) -> Note:
    """A tower whose rows an earlier conversion moved."""
    title = tower.family.title if tower.family else tower.part.value
    return Note(kind="stamped", text=f"the {tower.part.value} tower ({title}) is {layout}")


def towers_of(family: Family, parts: Iterable[Part], origin: str) -> tuple[Tower, ...]:
    """The towers among some parts of a model, each with its table.

    Raises:
        Unsupported: there is no such tower, or no row of it is known to rotate.
    """
    found = []
    for part in Part:
        if part is Part.TEXT or part not in parts:
            continue
        tower = next((tower for tower in family.towers if tower.part is part), None)
        if tower is None or tower.family is None:
            raise Unsupported(
                what=f"`{origin}` has no {part.value} tower whose rows could be moved",
                why=tower.why if tower else f"{family.title} is not known to have one",
                fix=f"leave out `Part.{part.name}`",
            )
        found.append(tower)
    return tuple(found)


def _integer(value: object) -> int:
    return value if type(value) is int else 0


def _treat(stored: StoredTensor, table: _Table) -> Treated | None:
    part = table.part
    matched = table.family.matches(stored.name)
    for rule, layer in matched:
        if not table.sizes.applies(rule, layer):
            continue
        rows = _rows_of(stored, rule, table.sizes.of(layer))
        if rule.aside is not None:
            rows = _kept(stored)
        return Treated(stored=stored, rule=rule, layer=layer, rows=rows, part=part)
    if matched:
        rule, layer = matched[0]
        if rule.depth and layer >= table.sizes.whole[rule.depth]:
            raise Contradiction(
                what=f"`{stored.name}` is of layer {layer}, and `config.json` gives its stack"
                f" {table.sizes.whole[rule.depth]} layers",
                why=f"they are {rule.depth} of {table.family.title}",
                fix="the config belongs to another model",
            )
        still = Rule(
            name=rule.name,
            rows="",
            why=table.family.reason_to_stay(stored.name) or "this layer does not rotate",
        )
        return Treated(stored=stored, rule=still, layer=layer, rows=_kept(stored), part=part)
    why = table.family.reason_to_stay(stored.name)
    if why is None:
        found = companion(stored.name)
        return None if found is None else _treat_companion(stored, found, table)
    still = Rule(name=stored.name, rows="", why=why)
    return Treated(stored=stored, rule=still, layer=None, rows=_kept(stored), part=part)


def _treat_companion(stored: StoredTensor, found: Companion, table: _Table) -> Treated | None:
    """A scale, zero point or packed weight: it follows its weight's rows, or stays."""
    family, sizes = table.family, table.sizes
    for rule, layer in family.matches(found.weight):
        if rule.rotates and sizes.applies(rule, layer):
            block = evaluate("quantization_config.weight_block_size", table.names)
            rows = parse_rows(rule.rows, sizes.of(layer))
            moved = rows_of_companion(stored, found, rows, block, inputs=rule.inputs)
            if moved == rows:
                return Treated(stored=stored, rule=rule, layer=layer, rows=rows, part=table.part)
            why = "belongs to the whole weight or to its inputs, or rows stay in their block of it"
            break
    else:
        if not family.matches(found.weight) and not family.reason_to_stay(found.weight):
            return None
        why = "belongs to a weight whose rows stay"
    still = Rule(name=stored.name, rows="", why=why)
    return Treated(stored=stored, rule=still, layer=None, rows=_kept(stored), part=table.part)


def _kept(stored: StoredTensor) -> tuple[Rows, ...]:
    return (Keep(math.prod(stored.shape[:1])),)


def _rows_of(stored: StoredTensor, rule: Rule, sizes: Mapping[str, int]) -> tuple[Rows, ...]:
    """The rule's rows. They may be spread over the leading axes: `[heads, head_dim]` of a norm."""
    try:
        rows = parse_rows(rule.rows, sizes)
    except RowsError as error:
        raise Contradiction(
            what=f"`{stored.name}` cannot have the rows {rule.rows}",
            why=f"{error.what}, with {_said(rule.rows, sizes)}",
            fix="the config belongs to another model",
        ) from error
    expected = num_rows(*rows)
    leading = [math.prod(stored.shape[:axes]) for axes in range(1, len(stored.shape) + 1)]
    if expected in leading[:2]:
        return rows
    raise Contradiction(
        what=f"`{stored.name}` has the shape {list(stored.shape)}, expected {expected} rows",
        why=f"its rows are {rule.rows} with {_said(rule.rows, sizes)}, which `config.json` gives",
        fix="the config belongs to another model; a wrong head count gives a silently wrong model",
    )


def _said(rows: str, sizes: Mapping[str, int]) -> str:
    used = words_of(rows)
    return ", ".join(f"{letter} = {size}" for letter, size in sizes.items() if letter in used)

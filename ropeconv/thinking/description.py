"""What a user's description of a family must fit, and what is recorded of it."""

from __future__ import annotations

from collections.abc import Iterable

from ropeconv.formats.checkpoint import Checkpoint
from ropeconv.knowledge.family import Family
from ropeconv.knowledge.registry import FAMILIES
from ropeconv.thinking.own_code import own_class
from ropeconv.thinking.pairs import key_of
from ropeconv.thinking.treated import Treated
from ropeconv.words.errors import UsageError
from ropeconv.words.layout import spans
from ropeconv.words.model import Format, Note


def check_description(described: Family, checkpoint: Checkpoint) -> None:
    """A description is for model types without a table, and for the one that it names.

    A checkpoint that brings code of its own may have rows that the table of its model type does not
    know: a description may say so.

    Raises:
        UsageError: it is for another model type, for Meta's format, or for one that has a table.
    """
    name = checkpoint.claims.family
    if checkpoint.format is not Format.HF or described.name != name:
        raise UsageError(
            what=f"the description is of `{described.name}`, but `{checkpoint.root}` is of the"
            f" model type `{name[:60]}` in {checkpoint.format.value} format",
            fix="describe this model type, for files in Hugging Face's format",
        )
    if name in FAMILIES and not own_class(checkpoint, FAMILIES[name]):
        raise UsageError(
            what=f"the model type `{name}` is described, but ropeconv has a table for it",
            why="a measured table is replaced by a description only where the checkpoint brings"
            " code of its own (`auto_map` in config.json)",
            fix="leave the description out",
        )


def said_of(described: Family) -> tuple[Note, ...]:
    """What the user said, for the record."""
    return tuple(
        Note(
            kind="described",
            text=f"by the user, {described.name} is {described.layout}: `{rule.name}` has the rows"
            f" {rule.rows}",
        )
        for rule in described.rules
    )


def check_spans(treated: Iterable[Treated]) -> None:
    """A query and its key rotate by the same angles, so their spans are equally long.

    Only where names tell one from the other: `q_proj` and `k_proj` of one attention, for example.
    Shapes do not tell: 6 heads of 10 rows are as many rows as 2 heads of 30.

    Raises:
        UsageError: the description gives them other lengths.
    """
    rows = {found.stored.name: found.rows for found in treated}
    for name, q in rows.items():
        key = key_of(name)
        k = rows.get(key)
        if k is None:
            continue
        ours, theirs = (sorted({len(span) for span in spans(parts)}) for parts in (q, k))
        if ours != theirs:
            raise UsageError(
                what=f"by the description, rotary spans of `{name[:120]}` have the lengths {ours},"
                f" and of its key `{key[:120]}` {theirs}",
                why="a query and its key rotate by the same angles, so their spans are equally"
                " long",
                fix="state how many heads each has, and how many rows of a head rotate",
            )

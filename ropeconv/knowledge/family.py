"""A family: one table of how each tensor of an architecture is treated.

Tables only; no code anywhere knows a model's name.

Rows are written in the notation of the words floor, with sizes by their letters:

    C hidden size, F intermediate size, V vocabulary, D head dimension, H query heads, K key/value
    heads, r rotary rows of a head, G query heads of a group, N rows of a latent head that are not
    rotated, R rank of the latent keys and values, X heads of a sparse attention's indexer

Names are templates. In braces stand `layer` or `head`, a number; `base`, one of the family's
beginnings; or words with commas between them, one of which it is. A star is anything.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property, lru_cache

from ropeconv.words.errors import RowsError
from ropeconv.words.layout import Keep, Repeat, Rope, RopeLayout, Rows
from ropeconv.words.model import Geometry
from ropeconv.words.parts import Part


class Split(Enum):
    """How a tensor is divided among model-parallel ranks."""

    ROWS = "rows"  # concatenated along axis 0
    KV_ROWS = "kv rows"  # the same, but heads are repeated when ranks exceed them
    COLUMNS = "columns"  # concatenated along axis 1
    EMBEDDING = (
        "rows or columns"  # by vocabulary (Llama 3 on) or by feature (Llama 1, 2): shapes tell
    )
    REPLICATED = "replicated"  # whole in every rank


class Peer(Enum):
    """The program against whose code a table is measured."""

    TRANSFORMERS = "transformers"  # in the tests
    MLX_LM = "mlx-lm"  # in the tests
    MINDNLP = "MindNLP"  # by hand, since it needs an environment of its own
    NONE = ""  # none: a user's description


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How one tensor, or one tensor of every layer, is treated.

    Attributes:
        name: the Hugging Face name, with `{layer}` where there is one of it in each layer.
        meta: the same tensor in Meta's format.
        rows: the rows in notation; also their number, which is checked against the shape.
        columns: the letter of the second axis; empty for a vector.
        split: how ranks divide it.
        why: a sentence for people.
        optional: legally absent (an output that is tied to the embedding).
        layers: a formula; layers for which it is false are not rotated, and their rows stay.
        depth: where a model has several stacks of layers, the letter of how many this one has.
        aside: the layout of a group that is not the model's main one; such rows stay as they are.
        inputs: the rows are the columns of each row, which read what rotary rows have made.
    """

    name: str
    rows: str
    why: str
    meta: str = ""
    columns: str = ""
    split: Split = Split.REPLICATED
    optional: bool = False
    layers: str = ""
    depth: str = ""
    aside: RopeLayout | None = None
    inputs: bool = False

    @property
    def rotates(self) -> bool:
        """Whether some of the rows are rotary and belong to the model's main layout."""
        return "Rope(" in self.rows and self.aside is None


@dataclass(frozen=True, kw_only=True)
class Family:
    """One architecture's table.

    Attributes:
        name: transformers' model type.
        layout: of the rotary rows in Hugging Face's files; Meta's are interleaved.
        dropped: names with no place in the other format, each with the reason; `{layer}` as in
            rules.
        sizes: letters of the notation, each with its formula over the config, in order. Empty for
            families whose every shape is in the rules.
        layer_sizes: formulas of letters that differ from layer to layer; they may use `layer`.
        stays: templates of tensors that no rotation touches, each with the reason.
        bases: what `{base}` may be.
        needs: formulas that must be true of the config, each with the reason to refuse it if not.
        switch: the config's key that tells the runtime of interleaved rows; empty if there is none.
        inner: where the config of a model of vision and language has its language model's: a key,
            or several with dots between them.
        towers: its other parts.
        absent: what transformers takes for keys that the config under `inner` leaves out.
        measured_by: whose code says so; where it is not transformers', that has none of the family.
    """

    name: str
    title: str
    layout: RopeLayout
    rules: tuple[Rule, ...]
    dropped: tuple[tuple[str, str], ...] = field(default=())
    sizes: tuple[tuple[str, str], ...] = ()
    layer_sizes: tuple[tuple[str, str], ...] = ()
    stays: tuple[tuple[str, str], ...] = ()
    bases: tuple[str, ...] = ("model.", "")
    needs: tuple[tuple[str, str], ...] = ()
    switch: str = ""
    inner: str = ""
    towers: tuple[Tower, ...] = ()
    absent: tuple[tuple[str, int], ...] = ()
    measured_by: Peer = Peer.TRANSFORMERS

    @property
    def has_every_shape(self) -> bool:
        """Whether the rules are the whole model: both formats' names, and the shape of each."""
        return bool(self.rules) and all(rule.meta for rule in self.rules)

    def find(self, name: str, column: str) -> tuple[Rule, int | None] | None:
        """The rule for a whole tensor name, and the layer in it.

        Args:
            name: as stored.
            column: "name" for Hugging Face's spelling, "meta" for Meta's.
        """
        for pattern, rule in self._patterns[column]:
            if match := pattern.fullmatch(name):
                layer = match.groupdict().get("layer")
                return rule, None if layer is None else int(layer)
        return None

    def reason_to_drop(self, name: str) -> str | None:
        """Why a tensor of that name has no place in the other format; None if it is not known."""
        for template, why in self.dropped:
            if _pattern(template, self.bases).fullmatch(name):
                return why
        return None

    def matches(self, name: str) -> list[tuple[Rule, int]]:
        """Every rule for a name of a layer: several where layers of one name differ in kind."""
        found = []
        for pattern, rule in self._patterns["name"]:
            if match := pattern.fullmatch(name):
                found.append((rule, int(match.groupdict().get("layer") or 0)))
        return found

    def may_lie(self, rule: Rule, before: str) -> bool:
        """Whether a name of the rule may begin so, up to its layer's number; "" if it has none."""
        start, layer, _ = rule.name.partition("{layer}")
        return bool(_pattern(start, self.bases).fullmatch(before)) if layer else not before

    def reason_to_stay(self, name: str) -> str | None:
        """Why no row of a tensor of that name moves; None if it is not known."""
        for template, why in self.stays:
            if _pattern(template, self.bases).fullmatch(name):
                return why
        return None

    @cached_property
    def _patterns(self) -> Mapping[str, tuple[tuple[re.Pattern[str], Rule], ...]]:
        return {
            "name": tuple((_pattern(rule.name, self.bases), rule) for rule in self.rules),
            "meta": tuple((_pattern(rule.meta, self.bases), rule) for rule in self.rules),
        }


@lru_cache(maxsize=4096)
def _pattern(template: str, bases: tuple[str, ...]) -> re.Pattern[str]:
    text = re.escape(template)
    text = text.replace(r"\{layer\}", r"(?P<layer>0|[1-9][0-9]{0,5})")
    text = text.replace(r"\{head\}", r"[0-9]{1,6}")
    text = text.replace(r"\{base\}", f"(?:{'|'.join(re.escape(base) for base in bases)})")
    # a star stands for a star, too: transformers 5.23 writes one into the name of ESM's buffer
    text = text.replace(r"\*", r"[A-Za-z0-9_.*\-]*")
    return re.compile(re.sub(r"\\\{([\w,\\.]+)\\\}", _one_of, text))


def _one_of(match: re.Match[str]) -> str:
    return f"(?:{match[1].replace(',', '|')})"


@dataclass(frozen=True, kw_only=True)
class Tower:
    """A part beside the language model, for images or sound.

    Attributes:
        key: of the config, under which the tower's own config lies; or several, with dots.
        bases: how its tensors begin, in the whole model.
        family: its table; None if no row of it is known to rotate.
        why: the reason, where there is no table.
    """

    part: Part
    key: str
    bases: tuple[str, ...]
    family: Family | None = None
    why: str = ""


def sizes_of(geometry: Geometry) -> dict[str, int]:
    """The letters of the notation, with a model's numbers."""
    return {
        "C": geometry.hidden_size,
        "F": geometry.intermediate_size,
        "V": geometry.vocab_size,
        "D": geometry.head_dim,
        "H": geometry.num_heads,
        "K": geometry.num_kv_heads,
    }


def parse_rows(text: str, sizes: Mapping[str, int]) -> tuple[Rows, ...]:
    """Rows from their notation: parts separated by commas, sizes as letters, sums and products.

    >>> parse_rows("Repeat(H, Rope(D)), Keep(2 * D)", {"H": 6, "D": 10})
    (Repeat(times=6, parts=(Rope(dim=10),)), Keep(count=20))

    Raises:
        RowsError: the text is not in the notation.
    """
    try:
        tree = ast.parse(f"({text},)", mode="eval").body
    except SyntaxError as error:
        raise _not_rows(text) from error
    if not isinstance(tree, ast.Tuple):
        raise _not_rows(text)
    return tuple(_rows(node, sizes, text) for node in tree.elts)


def _rows(node: ast.expr, sizes: Mapping[str, int], text: str) -> Rows:
    match node:
        case ast.Call(func=ast.Name(id="Keep"), args=[count], keywords=[]):
            return Keep(_size(count, sizes, text))
        case ast.Call(func=ast.Name(id="Rope"), args=[dim], keywords=[]):
            return Rope(_size(dim, sizes, text))
        case ast.Call(func=ast.Name(id="Repeat"), args=[times, *parts], keywords=[]) if parts:
            return Repeat(_size(times, sizes, text), *(_rows(part, sizes, text) for part in parts))
        case _:
            raise _not_rows(text)


def _size(node: ast.expr, sizes: Mapping[str, int], text: str) -> int:
    match node:
        case ast.Constant(value=int(value)):
            return value
        case ast.Name(id=name) if name in sizes:
            return sizes[name]
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return _size(left, sizes, text) * _size(right, sizes, text)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _size(left, sizes, text) + _size(right, sizes, text)
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            return _size(left, sizes, text) - _size(right, sizes, text)
        case _:
            raise _not_rows(text)


def _not_rows(text: str) -> RowsError:
    return RowsError(
        what=f"`{text[:200]}` is not in the notation of rows",
        why="it is made of Keep(n), Rope(r), Repeat(times, ...), the letters of sizes, + - * and"
        " numbers",
        fix="write for example `Repeat(H, Rope(D))`",
    )

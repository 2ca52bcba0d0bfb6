"""Names the mistake: which wrong handling of the source reproduces the target exactly.

Every hypothesis is an order of the source's rows (or columns, or another tensor). Rows are compared
by digest, so trying a hypothesis costs a comparison of two lists. The first that fits every row is
the diagnosis; there is no tolerance, so a diagnosis is a fact about the bytes, not a guess.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from ropeconv.moving.examine import read_rows
from ropeconv.thinking.evidence import to_floats
from ropeconv.thinking.inventory import Inventory
from ropeconv.thinking.whole import WholeTensor
from ropeconv.words.errors import Unsupported
from ropeconv.words.layout import (
    LAYOUTS,
    Keep,
    Repeat,
    Rope,
    RopeLayout,
    Rows,
    num_rows,
    row_order,
)
from ropeconv.words.model import Geometry
from ropeconv.words.parts import Part

DIGEST_NBYTES = 16
CHUNK_NBYTES = 1 << 22
MOST_TIMES = 4  # a reorder applied more often than this by mistake is not credible
COLUMN_ROWS = 64  # rows at a time when columns are compared
MOST_SHOWN = 8
MOST_ROWS = 1 << 20  # more are single numbers, columns that moved; each row has a digest


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """What happened to one tensor, in words that fit "q_proj: ..."."""

    tensor: str
    text: str


Order = Sequence[int]


@dataclass(frozen=True, kw_only=True)
class Sides:
    """The two checkpoints under suspicion."""

    source: Inventory
    target: Inventory

    @property
    def geometry(self) -> Geometry:
        """The source's sizes."""
        return self.source.geometry


def explain(sides: Sides, names: Sequence[str]) -> tuple[Mistake, ...]:
    """The mistake behind each of these tensors, as far as one is known.

    Args:
        sides: source and target.
        names: tensors of equal shape on both sides whose bytes differ.
    """
    source_digests = _Digests(sides.source)
    target_digests = _Digests(sides.target)
    return tuple(
        Mistake(tensor=name, text=text)
        for name in names
        if (text := _explain(sides, name, source_digests, target_digests))
    )


def summarise(mistakes: Sequence[Mistake]) -> tuple[str, ...]:
    """One sentence for each kind of mistake, over all the layers that have it.

    >>> summarise([Mistake(tensor=f"model.layers.{n}.a.k_proj.weight", text="x") for n in (0, 1,
    2)]) ('k_proj of layers 0-2: x',)
    """
    kinds: dict[tuple[str, str], list[int]] = {}
    for mistake in mistakes:
        match = re.match(r"(?:.*\.)?layers\.(\d+)\.(.*)", mistake.tensor)
        name = match[2] if match else mistake.tensor
        kinds.setdefault((_short(name), mistake.text), []).extend([int(match[1])] if match else [])
    merged: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    for (name, text), layers in kinds.items():
        merged.setdefault((text, tuple(sorted(layers))), []).append(name)
    return tuple(
        _listed(names) + (f" of {_ranges(layers)}" if layers else "") + f": {text}"
        for (text, layers), names in merged.items()
    )


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _short(name: str) -> str:
    parts = name.split(".")
    return ".".join(parts[-2:-1] if parts[-1] == "weight" and len(parts) > 1 else parts[-2:])


def _ranges(layers: Sequence[int]) -> str:
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][1] + 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    text = ", ".join(f"{first}-{last}" if last > first else f"{first}" for first, last in runs)
    return f"layer {text}" if len(layers) == 1 else f"layers {text}"


class _Digests:
    """Digests of rows and of whole tensors, computed once each."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self._rows: dict[str, tuple[bytes, ...]] = {}
        self._first: dict[str, bytes] = {}

    def rows(self, tensor: WholeTensor) -> tuple[bytes, ...]:
        """One digest for each row."""
        if tensor.name not in self._rows:
            self._rows[tensor.name] = tuple(self._compute(tensor))
        return self._rows[tensor.name]

    def first(self, tensor: WholeTensor) -> bytes:
        """The digest of row 0 alone."""
        if tensor.name in self._rows:
            return self._rows[tensor.name][0]
        if tensor.name not in self._first:
            data = read_rows(self._inventory.checkpoint, tensor, 0, 1)
            self._first[tensor.name] = hashlib.blake2b(data, digest_size=DIGEST_NBYTES).digest()
        return self._first[tensor.name]

    def _compute(self, tensor: WholeTensor) -> Iterator[bytes]:
        width = tensor.row_nbytes
        step = max(1, CHUNK_NBYTES // max(width, 1))
        for first in range(0, tensor.num_rows, step):
            last = min(first + step, tensor.num_rows)
            data = read_rows(self._inventory.checkpoint, tensor, first, last)
            for row in range(last - first):
                piece = data[row * width : (row + 1) * width]
                yield hashlib.blake2b(piece, digest_size=DIGEST_NBYTES).digest()


def _explain(sides: Sides, name: str, source: _Digests, target: _Digests) -> str:
    ours, theirs = sides.source.find(name), sides.target.find(name)
    if ours is None or theirs is None or ours.shape != theirs.shape:
        return ""
    if ours.num_rows > MOST_ROWS:
        return ""
    before, after = source.rows(ours), target.rows(theirs)
    for text, order in _row_hypotheses(sides, ours):
        if all(after[row] == before[order[row]] for row in range(len(after))):
            return text
    right = [before[row] for row in _right_order(sides, ours)]
    if text := _moved_blocks(sides, ours, right, after):
        return text
    if other := _whose(sides, ours, source, after):
        same_layer = other.layer == ours.layer
        return f"holds the bytes of {_short(other.name) if same_layer else f'layer {other.layer}'}"
    if len(ours.shape) > 1:
        for text, order in _column_hypotheses(sides, ours):
            if _columns_match(sides, ours, theirs, order):
                return text
    return _moved_rows(right, after, sides.geometry.head_dim if _has_heads(ours) else 0)


def _whose(
    sides: Sides, ours: WholeTensor, source: _Digests, after: Sequence[bytes]
) -> WholeTensor | None:
    """Another tensor of the source whose bytes, in their right order, these are."""
    for other in sides.source.tensors:
        if (other.shape, other.dtype) != (ours.shape, ours.dtype) or other.name == ours.name:
            continue
        if other.num_rows != ours.num_rows:  # of one the columns move
            continue
        # row 0 stays row 0 in every layout, so one row of each tensor sorts most of them out
        if source.first(other) != after[0]:
            continue
        right, before = _right_order(sides, other), source.rows(other)
        if all(after[row] == before[right[row]] for row in range(len(after))):
            return other
    return None


def _moved_blocks(
    sides: Sides, tensor: WholeTensor, right: Sequence[bytes], after: Sequence[bytes]
) -> str:
    """Whole heads or ranks in wrong places, each rightly reordered inside."""
    sizes = []
    if _has_heads(tensor):
        sizes.append(("head", sides.geometry.head_dim))
    pieces = [piece for piece in tensor.pieces if piece.row_nbytes == tensor.row_nbytes]
    if len(pieces) > 1:
        sizes.insert(0, ("rank", pieces[0].last_row - pieces[0].first_row))
    for word, size in sizes:
        places = _places(right, after, size)
        if places is None:
            continue
        count = len(places)
        shifts = {(place - block) % count for block, place in enumerate(places)}
        moved = [block for block, place in enumerate(places) if place != block]
        if len(moved) == 2:  # noqa: PLR2004 - a pair
            return f"{word}s {moved[0]} and {moved[1]} exchanged"
        if len(shifts) == 1:
            (shift,) = shifts
            return f"{word}s shifted by {count - shift if shift > count // 2 else -shift}"
        shown = ", ".join(map(str, places[:MOST_SHOWN]))
        return f"{word}s in the order {shown}{', ...' if count > MOST_SHOWN else ''}"
    return ""


def _places(right: Sequence[bytes], after: Sequence[bytes], size: int) -> list[int] | None:
    """For each block of rows, which right block it holds; None unless every one is found."""
    starts = range(0, len(right), size)
    found = {tuple(right[start : start + size]): block for block, start in enumerate(starts)}
    places = [found.get(tuple(after[start : start + size])) for start in starts]
    known = [place for place in places if place is not None]
    return known if len(known) == len(places) else None


def _moved_rows(right: Sequence[bytes], after: Sequence[bytes], head_dim: int) -> str:
    """Rows that are all there, some in wrong places."""
    if sorted(right) != sorted(after):
        return ""
    moved = [row for row in range(len(right)) if right[row] != after[row]]
    head = f" (head {moved[0] // head_dim})" if head_dim else ""
    if len(moved) == 2:  # noqa: PLR2004 - a pair
        return f"rows {moved[0]} and {moved[1]}{head} exchanged"
    return f"{len(moved)} of {len(right)} rows in wrong places, the first is row {moved[0]}{head}"


def _right_order(sides: Sides, tensor: WholeTensor) -> Order:
    return row_order(tensor.rows, *_layouts(sides, tensor))


def _layouts(sides: Sides, tensor: WholeTensor) -> tuple[RopeLayout, RopeLayout]:
    """Those of the tensor's part on the two sides."""
    return sides.source.layout_in(tensor.part), sides.target.layout_in(tensor.part)


def _row_hypotheses(sides: Sides, tensor: WholeTensor) -> Iterator[tuple[str, Order]]:
    """Wrong orders of a tensor's rows, the most frequent mistakes first."""
    before, after = _layouts(sides, tensor)
    unmoved = range(tensor.num_rows)
    right = _right_order(sides, tensor)
    rotary = _has_rope(tensor.rows)
    if rotary and before != after:
        yield f"not reordered, the rows are still {before}", unmoved
        yield "reordered in the wrong direction", row_order(tensor.rows, after, before)
        repeated: Order = right
        for times in range(2, MOST_TIMES + 1):
            repeated = [repeated[row] for row in right]
            words = "twice" if times == 2 else f"{times} times"  # noqa: PLR2004 - a word for two
            yield f"reordered {words}", repeated
    if rotary and before == after:
        for other in (row_order(tensor.rows, *ends) for ends in _other_layouts(before)):
            yield "reordered, though both sides have the same layout", other
    if tensor.part is Part.TEXT:  # the heads of towers have another geometry
        yield from _wrong_heads(sides, tensor, before, after)


def _other_layouts(layout: RopeLayout) -> Iterator[tuple[RopeLayout, RopeLayout]]:
    for other in LAYOUTS.values():
        if other != layout:
            yield layout, other
            yield other, layout


def _wrong_heads(
    sides: Sides, tensor: WholeTensor, before: RopeLayout, after: RopeLayout
) -> Iterator[tuple[str, Order]]:
    """Orders of another head count: the whole matrix as one head, keys with the queries' count."""
    geometry = sides.geometry
    count = tensor.num_rows
    heads = num_rows(*tensor.rows) // geometry.head_dim
    if not _has_heads(tensor) or before == after:
        return
    rotary = _has_rope(tensor.rows)
    for wrong in range(1, count // 2 + 1):
        if count % (2 * wrong) or (rotary and wrong == heads):
            continue
        order = row_order((Repeat(wrong, Rope(count // wrong)),), before, after)
        if not rotary:
            yield "reordered, though values are not rotated", order
        elif wrong == 1:
            yield "reordered with the whole matrix as one head", order
        else:
            yield f"reordered with {wrong} heads instead of {heads}", order
    if rotary:
        half = geometry.head_dim // 2
        if half % 2 == 0:
            order = row_order((Repeat(heads, Rope(half), Keep(half)),), before, after)
            yield "reordered in the first half of each head only", order


def _exchange(one: int, other: int, size: int, count: int) -> Order:
    order = list(range(count))
    first, second = (slice(block * size, (block + 1) * size) for block in (one, other))
    order[first], order[second] = order[second], order[first]
    return order


def _column_hypotheses(sides: Sides, tensor: WholeTensor) -> Iterator[tuple[str, Order]]:
    columns = tensor.shape[1]
    geometry = sides.geometry
    before, after = _layouts(sides, tensor)
    if columns == geometry.num_heads * geometry.head_dim and before != after:
        rows = (Repeat(geometry.num_heads, Rope(geometry.head_dim)),)
        yield "its columns were reordered, which belong to values", row_order(rows, before, after)
    pieces = [piece for piece in tensor.pieces if piece.row_nbytes < tensor.row_nbytes]
    if len(pieces) > 1:
        size = pieces[0].row_nbytes // tensor.dtype.nbytes
        for one, other in combinations(range(len(pieces)), 2):
            yield f"ranks {one} and {other} exchanged", _exchange(one, other, size, columns)


def _columns_match(sides: Sides, ours: WholeTensor, theirs: WholeTensor, order: Order) -> bool:
    width = ours.dtype.nbytes
    for first in range(0, ours.num_rows, COLUMN_ROWS):
        last = min(first + COLUMN_ROWS, ours.num_rows)
        before = read_rows(sides.source.checkpoint, ours, first, last)
        after = read_rows(sides.target.checkpoint, theirs, first, last)
        for row in range(last - first):
            start = row * ours.row_nbytes
            moved = b"".join(
                before[start + column * width : start + (column + 1) * width] for column in order
            )
            if moved != after[start : start + ours.row_nbytes]:
                return False
    return True


def _has_heads(tensor: WholeTensor) -> bool:
    """Whether the rows are those of heads, rotary or not: those of values are moved by mistake."""
    return any(isinstance(part, Repeat) for part in tensor.rows)


def _has_rope(rows: Sequence[Rows]) -> bool:
    return any(
        isinstance(part, Rope) or (isinstance(part, Repeat) and _has_rope(part.parts))
        for part in rows
    )


def first_difference(sides: Sides, name: str, row: int, column: int) -> str:
    """Where a tensor first differs, and the two values there."""
    ours, theirs = sides.source.find(name), sides.target.find(name)
    assert ours is not None
    assert theirs is not None
    right = _right_order(sides, ours)
    found = _value(sides.target, theirs, row, column)
    expected = _value(sides.source, ours, right[row], column)
    head = ""
    if _has_rope(ours.rows):
        head = f"head {row // sides.geometry.head_dim}, "
    place = f"{head}row {row}" + (f", column {column}" if len(ours.shape) > 1 else "")
    return f"first difference at {place}: {found}, expected {expected}"


def _value(inventory: Inventory, tensor: WholeTensor, row: int, column: int) -> str:
    width = tensor.dtype.nbytes
    data = read_rows(inventory.checkpoint, tensor, row, row + 1)
    element = data[column * width : (column + 1) * width]
    try:
        (value,) = to_floats(tensor.dtype, element)
    except Unsupported:
        return f"0x{element[::-1].hex()}"
    return f"{value:.6g} (0x{element[::-1].hex()})"

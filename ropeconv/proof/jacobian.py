"""Reads off which rows a model rotates together: the Jacobian of its own rotation.

The outputs of the query and key projections are replaced by unit vectors, one for each row; what
enters the attention at one position, against another, is that Jacobian. Row b of it lies in the
plane of rows b and b', its partner in the pair; the sign says which of the two is part 0. So pairs,
span, heads and layers that do not rotate are read off, whatever the model's code does in between.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ropeconv.knowledge.families.dense import INNER
from ropeconv.knowledge.family import Family, parse_rows
from ropeconv.thinking.sizes import Sizes
from ropeconv.words.layout import Keep, Repeat, Rope, RopeLayout, Rows

if TYPE_CHECKING:
    from torch import Tensor, nn

ATTENTION = "ropeconv_probe"
SMALLEST_TURN = 1e-9  # a row that changes less from position 0 to 1 does not rotate
SAME_PLANE = 0.99  # cosine between what a row turns into and its partner
# modules that multiply queries and keys themselves
MULTIPLY = ("Indexer", "RoFormerSelfAttention")
USUAL = ("q_proj", "k_proj", "query_key_value", "qkv_proj", "Wqkv", "q_b_proj", "wqkv")

Partners = tuple[tuple[int, int] | None, ...]  # of each row: (partner, part of its own) or None


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One projection of one layer.

    Attributes:
        partners: as measured.
        expected: by the table; None if the table does not know the tensor.
    """

    name: str
    partners: Partners
    expected: Partners | None

    @property
    def agrees(self) -> bool:
        """Whether every pair is as expected; slow pairs of frequency zero may stand still."""
        if self.expected is None:
            return False
        moved = [
            (found, wanted)
            for found, wanted in zip(self.partners, self.expected, strict=True)
            if found is not None
        ]
        turns = any(wanted is not None for wanted in self.expected)
        return all(found == wanted for found, wanted in moved) and bool(moved) == turns

    @property
    def num_rotated(self) -> int:
        """Rows that rotate."""
        return sum(found is not None for found in self.partners)

    @property
    def layout(self) -> str:
        """What the distances between partners say."""
        gaps = [
            partner[0] - row
            for row, partner in enumerate(self.partners)
            if partner is not None and partner[0] > row
        ]
        if not gaps:
            return "does not rotate"
        parts = {
            partner[1]
            for row, partner in enumerate(self.partners)
            if partner is not None and partner[0] > row
        }
        if parts != {0}:
            return "turns the other way"
        return "interleaved" if set(gaps) == {1} else f"half-split over {2 * max(gaps)} rows"


@dataclass(frozen=True, kw_only=True)
class ProbeReport:
    """What a model type of the installed transformers does, beside what the table says."""

    model_type: str
    measured: tuple[Measured, ...]
    is_known: bool

    @property
    def differences(self) -> tuple[Measured, ...]:
        """Where the table is wrong."""
        return tuple(one for one in self.measured if not one.agrees) if self.is_known else ()

    @property
    def agrees(self) -> bool:
        """Whether something rotates and all of it is as the table says."""
        turning = [one for one in self.measured if one.num_rotated]
        return self.is_known and bool(turning) and not self.differences


def register() -> str:
    """Make transformers know our attention: its own eager one, which tells us what enters it."""
    from transformers import AttentionInterface, AttentionMaskInterface  # noqa: PLC0415
    from transformers.masking_utils import eager_mask  # noqa: PLC0415

    AttentionInterface.register(ATTENTION, _attention)
    AttentionMaskInterface.register(ATTENTION, eager_mask)
    return ATTENTION


_listeners: list[Any] = []


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    **choices: Any,  # noqa: ANN401 - what transformers passes on
) -> Any:  # noqa: ANN401
    for listener in _listeners:
        listener(module, query, key)
    eager = sys.modules[type(module).__module__].eager_attention_forward
    if choices.get("scaling", 1) is None:  # Llama 4's tower leaves it to its own eager attention
        choices["scaling"] = query.shape[-1] ** -0.5
    return eager(module, query, key, value, attention_mask, **choices)


@contextmanager
def recording(model: Any) -> Iterator[dict[str, list[tuple[Tensor, Tensor]]]]:  # noqa: ANN401
    """Queries and keys as they enter the attention, by the name of the attention module."""
    names = {module: name for name, module in model.named_modules()}
    seen: dict[str, list[tuple[Tensor, Tensor]]] = {}

    def listen(module: nn.Module, query: Tensor, key: Tensor) -> None:
        seen.setdefault(names[module], []).append((query, key))

    import torch  # noqa: PLC0415

    inside: list[nn.Module] = []
    function = torch.nn.functional.scaled_dot_product_attention

    def plain(query: Tensor, key: Tensor, *rest: Any, **choices: Any) -> Tensor:  # noqa: ANN401
        if inside:
            listen(inside[-1], query, key)
        return function(query, key, *rest, **choices)

    with ExitStack() as undo:
        _listeners.append(listen)
        undo.callback(_listeners.remove, listen)
        torch.nn.functional.scaled_dot_product_attention = plain
        undo.callback(setattr, torch.nn.functional, "scaled_dot_product_attention", function)
        for module in names:
            if type(module).__name__.endswith("Attention"):
                hook = module.register_forward_pre_hook(lambda at, _inputs: inside.append(at))
                undo.callback(hook.remove)
            if type(module).__name__.endswith(MULTIPLY):
                undo.enter_context(_multiplying(module, listen))
            if "_attn" in vars(type(module)):  # GPT-J and its kin, older than the interface
                module._attn = _telling(module, module._attn, listen)  # noqa: SLF001
                undo.callback(delattr, module, "_attn")
        yield seen


@contextmanager
def _multiplying(module: nn.Module, listen: Any) -> Iterator[None]:  # noqa: ANN401
    """Tells of the first product of four axes in each run of a module: its queries and keys."""
    torch: Any = import_module("torch")
    matmul = torch.matmul

    def told(one: Tensor, other: Tensor) -> Any:  # noqa: ANN401
        if one.ndim == other.ndim == 4:  # noqa: PLR2004 - batch, heads and tokens, dimension
            torch.matmul = matmul
            key = other.transpose(-1, -2)
            by_token = one.shape[1] == key.shape[2]  # [B, T, H, D], and not [B, H, T, D]
            listen(module, one.transpose(1, 2) if by_token else one, key)
        return matmul(one, other)

    def begin(_module: object, _inputs: object) -> None:
        torch.matmul = told

    def end(_module: object, _inputs: object, _output: object) -> None:
        torch.matmul = matmul

    hooks = (module.register_forward_pre_hook(begin), module.register_forward_hook(end))
    try:
        yield
    finally:
        torch.matmul = matmul
        for hook in hooks:
            hook.remove()


def _telling(module: nn.Module, inner: Any, listen: Any) -> Any:  # noqa: ANN401
    def told(query: Tensor, key: Tensor, *rest: Any, **choices: Any) -> Any:  # noqa: ANN401
        listen(module, query, key)
        return inner(query, key, *rest, **choices)

    return told


def projections_of(model: Any, family: Family | None) -> list[tuple[str, nn.Module, int]]:  # noqa: ANN401
    """Name, module and rows of every projection that may rotate."""
    found = []
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if weight is None or weight.ndim != 2:  # noqa: PLR2004 - a matrix
            continue
        rules = family.matches(name + ".weight") if family else []
        is_usual = family is None and name.rpartition(".")[2] in USUAL
        if any("Rope(" in rule.rows and not rule.inputs for rule, _ in rules) or is_usual:
            if type(module).__name__.endswith("Norm"):
                continue
            found.append((name, module, weight.shape[0]))
    return found


def experts_of(model: Any, family: Family | None) -> list[nn.Module]:  # noqa: ANN401
    """Experts that make rotary rows: their tokens are in no order that a probe knows."""
    return [
        module
        for name, module in model.named_modules()
        if getattr(getattr(module, "weight", None), "ndim", 0) == 3  # noqa: PLR2004 - of experts
        and family is not None
        and any(rule.rotates for rule, _ in family.matches(name + ".weight"))
    ]


def norms_of(model: Any, family: Family | None) -> list[nn.Module]:  # noqa: ANN401
    """Norms between projection and rotation: they would mix rows, and are left out."""
    return [
        module
        for name, module in model.named_modules()
        if type(module).__name__.endswith("Norm")
        and (
            any("Rope(" in rule.rows for rule, _ in family.matches(name + ".weight"))
            if family
            else "attn." in name
        )
    ]


@contextmanager
def replaced(module: nn.Module, output: Tensor) -> Iterator[None]:
    """The module's output is this one, for every token, while the block runs."""

    def replace(_module: object, _inputs: object, found: Tensor) -> Tensor:
        return output.to(found.dtype).expand(found.shape)

    handle = module.register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def without(module: nn.Module) -> Iterator[None]:
    handle = module.register_forward_hook(lambda _module, inputs, _output: inputs[0])
    try:
        yield
    finally:
        handle.remove()


def partners_of(call: tuple[Tensor, ...]) -> Partners:
    """Of each projection row, the row that it turns into, and which part of the pair it is."""
    import torch  # noqa: PLC0415

    # [rows, heads, tokens, dim] of queries and keys -> [rows, tokens, all of both]
    both = torch.cat([x.transpose(1, 2).flatten(2) for x in call], dim=-1).double()
    start, turned = both[:, 0], both[:, 1]
    norms = start.norm(dim=-1).clamp_min(1e-30)
    along = (turned * start).sum(-1) / norms**2
    rest = turned - along[:, None] * start
    moves = rest.norm(dim=-1) > SMALLEST_TURN * norms  # growing with position is not turning
    cosines = (rest @ start.T) / (rest.norm(dim=-1).clamp_min(1e-30)[:, None] * norms)
    cosines[:, norms == 0] = 0
    best, at = cosines.abs().max(dim=-1)
    found: list[tuple[int, int] | None] = []
    for row in range(len(both)):
        if not moves[row]:
            found.append(None)
        elif best[row] < SAME_PLANE:
            found.append((-1, 0))  # no pair: not a rotation of two rows
        else:
            found.append((int(at[row]), 0 if cosines[row, at[row]] > 0 else 1))
    return tuple(found)


def expected_partners(family: Family, name: str, names: dict[str, Any], rows: int) -> Partners:
    """What the table says of the rows of one projection."""
    if not family.sizes:  # the whole tables of Llama and Mistral
        family = INNER[family.name]
    sizes = Sizes(family, names, "the tiny config")
    for rule, layer in family.matches(name):
        if sizes.applies(rule, layer):
            layout = rule.aside or family.layout
            return _pairs(parse_rows(rule.rows, sizes.of(layer)), layout)
    return (None,) * rows


def _pairs(parts: tuple[Rows, ...], layout: RopeLayout) -> Partners:
    """Partner and part of each row, by the notation."""
    found: list[tuple[int, int] | None] = []
    for part in parts:
        match part:
            case Keep(count):
                found += [None] * count
            case Rope(dim):
                pair_stride, part_stride = layout.strides(dim // 2)
                span: list[tuple[int, int] | None] = [None] * dim
                for pair in range(dim // 2):
                    first = pair * pair_stride
                    span[first] = (len(found) + first + part_stride, 0)
                    span[first + part_stride] = (len(found) + first, 1)
                found += span
            case Repeat(times, inner):
                once = _pairs(inner, layout)
                for _ in range(times):
                    start = len(found)
                    found += [x if x is None else (x[0] + start, x[1]) for x in once]
    return tuple(found)


def is_near(at: str, parent: str) -> bool:
    """Whether the calls of one module see what the projections of the other make."""
    if ("indexer" in at.split(".")) != ("indexer" in parent.split(".")):
        return False
    return at == parent or at.startswith(parent + ".") or parent.startswith(at + ".")

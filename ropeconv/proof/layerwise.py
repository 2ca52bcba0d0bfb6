"""A transformers model run by its own code, with one layer's weights in memory at a time.

The model is built without weights. Before a part of it computes, its tensors are read; afterwards
they are dropped. A part is a layer, or what stands outside of all layers: the embedding, the last
norm, the output. So memory holds the largest part and the activations, whatever the depth, while
order, masks and rotations are transformers' own.

Notation: B sequences, T tokens, V vocabulary.
"""

# ruff: noqa: N803, N806 - axes stand in names: see the notation above

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ropeconv.proof.plain import load_tensor
from ropeconv.thinking.inventory import Inventory
from ropeconv.thinking.whole import WholeTensor
from ropeconv.words.events import LayerDone, LayersPlanned, Listener, WorkDone


@dataclass(kw_only=True, eq=False)
class Part:
    """What is loaded and dropped together.

    Attributes:
        module: whose call needs the tensors.
        layer: its number; None outside of all layers.
        places: the module and the attribute that hold each tensor, and the tensor.
    """

    module: nn.Module
    layer: int | None
    places: list[tuple[nn.Module, str, WholeTensor]] = field(default_factory=list)

    def fill(self, inventory: Inventory, dtype: torch.dtype) -> None:
        """Read the weights."""
        for owner, name, tensor in self.places:
            weight = load_tensor(inventory, tensor, dtype)
            setattr(owner, name, nn.Parameter(weight, requires_grad=False))

    def empty(self, dtype: torch.dtype) -> None:
        """Drop the weights.

        One NaN stands for all of them: code that looks at their device finds the right one, and
        code that computes with them out of turn cannot go unnoticed.
        """
        for owner, name, tensor in self.places:
            nothing = torch.full((), torch.nan, dtype=dtype).expand(tensor.shape)
            setattr(owner, name, nn.Parameter(nothing, requires_grad=False))


def run_by_layers(
    model: nn.Module,
    parts: list[Part],
    inventory: Inventory,
    tokens_BT: Tensor,
    dtype: torch.dtype,
    listen: Listener,
) -> Tensor:
    """Logits of the next token at every position.

    Args:
        model: one without weights.
        parts: of the model.
        inventory: where the weights lie.
        tokens_BT: all positions go through each layer at once.
        dtype: what to compute in.
        listen: hears of each layer.

    Shapes:
        tokens_BT [B, T] -> [B, T, V]
    """
    title = f"running {inventory.checkpoint.root.name}"
    layers = [part for part in parts if part.layer is not None]
    listen(LayersPlanned(title=title, num_layers=len(layers)))
    for part in parts:
        _attach(part, inventory, dtype, listen)
    with torch.no_grad():
        logits_BTV: Tensor = model(tokens_BT, use_cache=False).logits
    listen(WorkDone(title=title))
    return logits_BTV


def _attach(part: Part, inventory: Inventory, dtype: torch.dtype, listen: Listener) -> None:
    def before(*_: object) -> None:
        part.fill(inventory, dtype)

    def after(*_: object) -> None:
        part.empty(dtype)
        if part.layer is not None:
            listen(LayerDone(layer=part.layer))

    part.empty(dtype)
    part.module.register_forward_pre_hook(before)
    part.module.register_forward_hook(after)


@contextmanager
def without_weights() -> Iterator[None]:
    """Modules made in here have parameters without memory; their buffers are real."""
    register = nn.Module.register_parameter

    def register_hollow(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        if param is not None and not param.is_meta:
            param = nn.Parameter(param.to("meta"), requires_grad=False)
        register(self, name, param)

    nn.Module.register_parameter = register_hollow  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


def parts_of(model: nn.Module, inventory: Inventory) -> list[Part] | None:
    """The parts of a model without weights; its few stored buffers are read at once.

    None where the checkpoint does not hold each of the model's tensors under the model's own name:
    then transformers joins or renames tensors as it loads them.
    """
    state = model.state_dict(keep_vars=True)
    alike: dict[int, list[str]] = {}
    for name, value in state.items():
        alike.setdefault(id(value), []).append(name)
    parts: dict[nn.Module, Part] = {}
    for name, value in state.items():
        stored = [found for one in (name, *alike[id(value)]) if (found := inventory.find(one))]
        if not stored or stored[0].shape != tuple(value.shape):
            return None
        owner_name, _, leaf = name.rpartition(".")
        owner = model.get_submodule(owner_name)
        if not isinstance(value, nn.Parameter):
            setattr(owner, leaf, load_tensor(inventory, stored[0], value.dtype))
            continue
        module, layer = _part_at(model, owner_name)
        part = parts.setdefault(module, Part(module=module, layer=layer))
        part.places.append((owner, leaf, stored[0]))
    return list(parts.values())


def _part_at(model: nn.Module, name: str) -> tuple[nn.Module, int | None]:
    """The layer around a module, or the module itself."""
    module = model
    words = iter(name.split(".")) if name else iter(())
    for word in words:
        module = module.get_submodule(word)
        if isinstance(module, nn.ModuleList):
            layer = next(words)
            return module.get_submodule(layer), int(layer)
    return module, None

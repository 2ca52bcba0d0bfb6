"""What a side of a proof runs in as a whole: the code that its users run.

A Meta side runs in the plain forward pass of `forward.py`, a Hugging Face side in transformers,
layer by layer.

Notation: B sequences, T tokens, V vocabulary.
"""

# ruff: noqa: N803, N806 - axes stand in names: see the notation above

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor, nn

import ropeconv.kernels  # noqa: F401 - it decides how Triton starts, which transformers imports
from ropeconv.moving.resources import free_memory
from ropeconv.proof.layerwise import parts_of, run_by_layers, without_weights
from ropeconv.proof.plain import run_plain
from ropeconv.thinking.family_model import runtimes
from ropeconv.thinking.inventory import Inventory
from ropeconv.words.errors import Unsupported
from ropeconv.words.events import Listener
from ropeconv.words.model import Format, Model


class Runtime(Enum):
    """What runs a model."""

    PLAIN = "plain Meta form"
    TRANSFORMERS = "transformers"


@dataclass(frozen=True, kw_only=True)
class Runner:
    """One side, ready to be run."""

    inventory: Inventory
    model: Model

    @property
    def runtime(self) -> Runtime:
        """Where its users run it."""
        hf = self.inventory.checkpoint.format is Format.HF
        return Runtime.TRANSFORMERS if hf else Runtime.PLAIN

    @property
    def reference(self) -> Runtime:
        """Where its exact logits come from: the plain pass, as far as it knows the family."""
        known = self.inventory.family.has_every_shape
        return Runtime.PLAIN if known else Runtime.TRANSFORMERS


def check_runnable(side: Runner) -> None:
    """Refuse what nothing can run, before anything is read.

    Raises:
        Unsupported: transformers is missing, does not know the model, rotates other rows, or cannot
            run it layer by layer, and it is too large to be run at once.
    """
    if side.runtime is Runtime.PLAIN:
        return
    if importlib.util.find_spec("transformers") is None:
        raise Unsupported(
            what="transformers is not installed",
            why="the Hugging Face side runs in it",
            fix="pip install 'ropeconv[transformers]', or pass `logits=None`",
        )
    family, layout = side.inventory.family, side.inventory.layout
    if layout != family.layout and not family.switch:
        raise Unsupported(
            what=f"`{side.inventory.checkpoint.root}` cannot be run as a whole",
            why=runtimes(family, layout),
            fix="pass `logits=None`: bytes and scores are compared for every family",
        )
    if parts_of(_hollow_model(side, torch.float32), side.inventory) is None:
        twice = side.reference is Runtime.TRANSFORMERS  # in float64 for its exact logits
        _check_memory(side.inventory, torch.float64 if twice else torch.float32)


def run(
    side: Runner, runtime: Runtime, tokens_BT: Tensor, dtype: torch.dtype, listen: Listener
) -> Tensor:
    """Logits of the next token at every position.

    Shapes:
        tokens_BT [B, T] -> [B, T, V]
    """
    if runtime is Runtime.PLAIN:
        with torch.no_grad():
            return run_plain(side.inventory, side.model, tokens_BT, dtype)
    model = _hollow_model(side, dtype)
    parts = parts_of(model, side.inventory)
    if parts is not None:
        return run_by_layers(model, parts, side.inventory, tokens_BT, dtype, listen)
    from transformers import AutoModelForCausalLM  # noqa: PLC0415 - an extra

    model = AutoModelForCausalLM.from_pretrained(
        side.inventory.checkpoint.root,
        config=model.config,
        dtype=dtype,
        local_files_only=True,
        trust_remote_code=False,
    )
    with torch.no_grad():
        logits_BTV: Tensor = model(tokens_BT, use_cache=False).logits
    return logits_BTV


def _hollow_model(side: Runner, dtype: torch.dtype) -> nn.Module:
    """The model of transformers, without weights.

    Raises:
        Unsupported: the installed transformers does not know it, or it is quantised.
    """
    from transformers import AutoConfig, AutoModelForCausalLM  # noqa: PLC0415 - an extra
    from transformers.utils import logging  # noqa: PLC0415

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    root = side.inventory.checkpoint.root
    no_code = {"trust_remote_code": False}
    try:
        config = AutoConfig.from_pretrained(root, local_files_only=True, **no_code)
        # the usual one needs rows of whole 16 bytes, and no float64
        config._experts_implementation = "eager"  # noqa: SLF001
        with without_weights():
            model: nn.Module = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
                config, dtype=dtype, **no_code
            )
    except (ValueError, KeyError, OSError, RuntimeError) as error:  # the last: out of memory
        raise Unsupported(
            what=f"the installed transformers cannot run `{root}`",
            why=str(error).splitlines()[0],
            fix="pass `logits=None`: bytes and scores are compared for every family",
        ) from error
    if getattr(config, "quantization_config", None) is not None:
        raise Unsupported(
            what=f"`{root}` is quantised, and is not run as a whole here",
            why="its weights are numbers only together with their scales",
            fix="pass `logits=None`: bytes are compared, the scales' too",
        )
    return model.eval()


def _check_memory(inventory: Inventory, dtype: torch.dtype) -> None:
    elements = sum(math.prod(tensor.shape) for tensor in inventory.tensors)
    nbytes, free = elements * dtype.itemsize, free_memory()
    if free is not None and nbytes > free:
        raise Unsupported(
            what=f"running `{inventory.checkpoint.root}` takes {nbytes} bytes of memory, {free} are"
            " free",
            why="transformers joins tensors of this family as it loads them, so that its layers"
            " cannot be read one by one",
            fix="use a machine with more memory, or pass `logits=None`",
        )

"""The logits check: both models run as a whole, each in the code that its users run.

A Hugging Face side runs in transformers, a Meta side in the plain forward pass of `forward.py`.
Logits mix everything, so this check is weaker than bytes and scores; it is for people who want to
see the models speak.

Notation: B sequences, T tokens, V vocabulary.
"""

# ruff: noqa: N803, N806 - axes stand in names: see the notation above

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ropeconv.moving.examine import read_rows
from ropeconv.proof.forward import Architecture, forward, next_token_loss
from ropeconv.proof.verdict import LogitsCheck, Outcome
from ropeconv.thinking.inventory import Inventory, WholeTensor
from ropeconv.words.errors import Unsupported, UsageError
from ropeconv.words.layout import INTERLEAVED, reorder_rows
from ropeconv.words.model import Format, Model

MOST_TOKENS = 512
RANDOM_TOKENS = 128
BYTES_VOCAB = 256
ROUNDING_FACTOR = 8.0  # two float32 programs, each with its own order of operations


@dataclass(frozen=True, kw_only=True)
class Runner:
    """One side, ready to be run."""

    inventory: Inventory
    model: Model


class LazyWeights(Mapping[str, Tensor]):
    """Weights under Meta's names with interleaved rows, read from disk when they are used.

    One tensor is in memory at a time, whatever the model's size.
    """

    def __init__(self, inventory: Inventory, dtype: torch.dtype) -> None:
        self._inventory = inventory
        self._dtype = dtype
        self._by_name = {
            tensor.rule.meta.replace("{layer}", str(tensor.layer)): tensor
            for tensor in inventory.tensors
        }
        if "output.weight" not in self._by_name:
            self._by_name["output.weight"] = inventory.tensors[0]  # tied to the embedding

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._by_name[name]
        weight = load_tensor(self._inventory, tensor)
        if self._inventory.layout != INTERLEAVED:
            weight = reorder_rows(
                weight, tensor.rows, source=self._inventory.layout, target=INTERLEAVED
            )
        return weight.to(self._dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)


def load_tensor(inventory: Inventory, tensor: WholeTensor) -> Tensor:
    """A tensor of a checkpoint as it is stored, joined from its pieces."""
    data = bytearray(read_rows(inventory.checkpoint, tensor, 0, tensor.num_rows))
    weight = torch.frombuffer(data, dtype=getattr(torch, tensor.dtype.torch_name))
    return weight.view(tensor.shape)


def check_logits(source: Runner, target: Runner, text: Path | None) -> LogitsCheck:
    """Run both on the same tokens, and compare what they predict.

    The rule: the target's logits may be off from the source's in float64 by a small multiple of
    what the source's own float32 pass is off. Both numbers are measured on these tokens; nothing is
    chosen     but the factor.

    Args:
        source: the reference.
        target: the checkpoint in question.
        text: a file to predict; None for seeded random tokens, which are as good for equality.

    Raises:
        UsageError: the text cannot be turned into tokens.
        Unsupported: transformers is not installed, or cannot run a side.
    """
    tokens_BT = _tokens(source, target, text)
    with torch.no_grad():
        exact = _plain(source, tokens_BT, torch.float64)
        ours, theirs = (_run(side, tokens_BT).double() for side in (source, target))
    floor = _rms(_plain(source, tokens_BT, torch.float32).double() - exact)
    error = max(_rms(ours - exact), _rms(theirs - exact))
    kl_BT = _kl(ours, theirs)
    agreement = float((ours.argmax(-1) == theirs.argmax(-1)).double().mean())
    bound = ROUNDING_FACTOR * floor
    return LogitsCheck(
        outcome=Outcome.SAME if error <= bound else Outcome.DIFFERENT,
        num_tokens=tokens_BT.numel(),
        text=str(text) if text else "",
        source_runtime=_runtime(source),
        target_runtime=_runtime(target),
        source_loss=float(next_token_loss(ours, tokens_BT)),
        target_loss=float(next_token_loss(theirs, tokens_BT)),
        mean_kl=float(kl_BT.mean()),
        largest_kl=float(kl_BT.max()),
        argmax_agreement=agreement,
        rms_error=error,
        bound=bound,
    )


def _runtime(side: Runner) -> str:
    if side.inventory.checkpoint.format is Format.HF:
        return "transformers"
    return "plain Meta form"


def _run(side: Runner, tokens_BT: Tensor) -> Tensor:
    if side.inventory.checkpoint.format is Format.META:
        return _plain(side, tokens_BT, torch.float32)
    if importlib.util.find_spec("transformers") is None:
        raise Unsupported(
            what="transformers is not installed",
            why="the Hugging Face side runs in it",
            fix="pip install 'ropeconv[transformers]', or pass `logits=None`",
        )
    from transformers import AutoModelForCausalLM  # noqa: PLC0415 - an extra
    from transformers.utils import logging  # noqa: PLC0415

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    model = AutoModelForCausalLM.from_pretrained(
        side.inventory.checkpoint.root, dtype=torch.float32, local_files_only=True
    )
    logits: Tensor = model(tokens_BT).logits
    return logits


def _plain(side: Runner, tokens_BT: Tensor, dtype: torch.dtype) -> Tensor:
    """The Meta-form pass, on rows brought to interleaved order where they are not."""
    model = side.model
    architecture = Architecture(
        num_layers=model.geometry.num_layers,
        num_heads=model.geometry.num_heads,
        num_kv_heads=model.geometry.num_kv_heads,
        head_dim=model.geometry.head_dim,
        norm_eps=model.norm_eps,
        rope=model.rope,
        sliding_window=model.sliding_window,
    )
    return forward(LazyWeights(side.inventory, dtype), architecture, tokens_BT)


def _tokens(source: Runner, target: Runner, text: Path | None) -> Tensor:
    vocab_size = source.model.geometry.vocab_size
    if text is None:
        generator = torch.Generator().manual_seed(0)
        return torch.randint(0, vocab_size, (1, RANDOM_TOKENS), generator=generator)
    try:
        data = text.read_bytes()
    except OSError as error:
        raise UsageError(
            what=f"cannot read `{text}`",
            why=(error.strerror or str(error)).lower(),
            fix="name a text file, or none: random tokens compare logits as well",
        ) from error
    for side in (target, source):
        root = side.inventory.checkpoint.root
        if (root / "tokenizer.json").is_file():
            from transformers import AutoTokenizer  # noqa: PLC0415 - an extra

            tokenizer = AutoTokenizer.from_pretrained(root, local_files_only=True)
            ids = tokenizer(data.decode("utf-8", "replace"))["input_ids"]
            return torch.tensor(ids[:MOST_TOKENS])[None]
    if vocab_size == BYTES_VOCAB and len(data) > 1:
        return torch.tensor(list(data[:MOST_TOKENS]))[None]
    raise UsageError(
        what=f"`{text}` cannot be turned into tokens",
        why="neither side has a tokenizer.json, and the vocabulary is not that of bytes",
        fix="give no text: random tokens compare logits as well",
    )


def _rms(x: Tensor) -> float:
    return math.sqrt(float(x.double().pow(2).mean()))


def _kl(ours_BTV: Tensor, theirs_BTV: Tensor) -> Tensor:
    """KL divergence of each token's prediction, in nats, summed over the vocabulary."""
    ours, theirs = ours_BTV.log_softmax(-1), theirs_BTV.log_softmax(-1)
    return (ours.exp() * (ours - theirs)).sum(-1).clamp_min(0)

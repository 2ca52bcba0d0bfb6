"""The logits check: both models run as a whole, each in the code that its users run.

Logits mix everything, so this check is weaker than bytes and scores; it is for people who want to
see the models speak. Memory holds one layer of one model at a time, and the logits of three runs.

Notation: B sequences, T tokens, V vocabulary.
"""

# ruff: noqa: N803, N806 - axes stand in names: see the notation above

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from ropeconv.proof.forward import next_token_loss
from ropeconv.proof.runtimes import Runner, run
from ropeconv.proof.tokens import random_tokens, tokens_of
from ropeconv.proof.verdict import LogitsCheck, Outcome
from ropeconv.words.events import Listener

ROUNDING_FACTOR = 8.0  # two float32 programs, each with its own order of operations
TOKENS_AT_A_TIME = 32  # compared in float64


def choose_tokens(source: Runner, target: Runner, text: Path | None) -> Tensor:
    """The tokens that both are given, [1, T]: a text's, or seeded random ones.

    Random ones are as good for equality.

    Raises:
        UsageError: the text cannot be turned into tokens.
    """
    vocab_size = source.model.geometry.vocab_size
    if text is None:
        return random_tokens(vocab_size)
    folders = (side.inventory.checkpoint.root for side in (target, source))
    return tokens_of(text, vocab_size, *folders)


def check_logits(
    source: Runner, target: Runner, tokens_BT: Tensor, listen: Listener, *, text: Path | None = None
) -> LogitsCheck:
    """Run both on the same tokens, and compare what they predict.

    The rule: logits of either side may be off from the source's in float64 by a small multiple of
    what the source's own float32 pass is off. Both numbers are measured on these tokens; nothing is
    chosen but the factor.

    Args:
        source: the reference.
        target: the checkpoint in question.
        tokens_BT: what both are given.
        listen: hears of progress.
        text: the file that the tokens come from.
    """
    ours, theirs = (
        run(side, side.runtime, tokens_BT, torch.float32, listen) for side in (source, target)
    )
    exact = run(source, source.reference, tokens_BT, torch.float64, listen)
    plain = ours
    if source.runtime is not source.reference:
        plain = run(source, source.reference, tokens_BT, torch.float32, listen)
    floor = _rms(plain, exact)
    error = max(_rms(ours, exact), _rms(theirs, exact))
    kl_T = _kl(ours, theirs)
    bound = ROUNDING_FACTOR * floor
    return LogitsCheck(
        outcome=_outcome(error, bound),
        num_tokens=tokens_BT.numel(),
        text=str(text) if text else "",
        source_runtime=source.runtime.value,
        target_runtime=target.runtime.value,
        source_loss=float(next_token_loss(ours, tokens_BT)),
        target_loss=float(next_token_loss(theirs, tokens_BT)),
        mean_kl=float(kl_T.mean()),
        largest_kl=float(kl_T.max()),
        argmax_agreement=float((ours.argmax(-1) == theirs.argmax(-1)).double().mean()),
        rms_error=error,
        bound=bound,
    )


def _outcome(error: float, bound: float) -> Outcome:
    """A source without numbers has nothing to compare with."""
    if not math.isfinite(bound):
        return Outcome.INCONCLUSIVE
    return Outcome.SAME if error <= bound else Outcome.DIFFERENT


def _rms(some_BTV: Tensor, exact_BTV: Tensor) -> float:
    squares = (
        float((some.double() - exact).pow(2).sum())
        for some, exact in _at_a_time(some_BTV, exact_BTV)
    )
    return math.sqrt(sum(squares) / exact_BTV.numel())


def _kl(ours_BTV: Tensor, theirs_BTV: Tensor) -> Tensor:
    """KL divergence of each token's prediction, in nats, summed over the vocabulary."""
    found = []
    for pair in _at_a_time(ours_BTV, theirs_BTV):
        ours, theirs = (logits.double().log_softmax(-1) for logits in pair)
        found.append((ours.exp() * (ours - theirs)).sum(-1).clamp_min(0))
    return torch.cat(found)


def _at_a_time(one_BTV: Tensor, other_BTV: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The same tokens of both, a few at a time: a vocabulary of 128,000 in float64 is a MB each."""
    split = (torch.split(x.flatten(0, 1), TOKENS_AT_A_TIME) for x in (one_BTV, other_BTV))
    return list(zip(*split, strict=True))

"""The tokens that both models are given: a text's, or random ones.

Notation: T tokens.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ropeconv.words.errors import UsageError

MOST_TOKENS = 512
RANDOM_TOKENS = 128
BYTES_VOCAB = 256


def random_tokens(vocab_size: int) -> Tensor:
    """Seeded, [1, T]: as good as a text's for equality."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, vocab_size, (1, RANDOM_TOKENS), generator=generator)


def tokens_of(text: Path, vocab_size: int, *folders: Path) -> Tensor:
    """A text's first tokens, [1, T], by the tokenizer in one of the folders.

    Raises:
        UsageError: the text cannot be read, or nothing turns it into tokens.
    """
    try:
        data = text.read_bytes()
    except OSError as error:
        raise UsageError(
            what=f"cannot read `{text}`",
            why=(error.strerror or str(error)).lower(),
            fix="name a text file, or none: random tokens compare logits as well",
        ) from error
    for folder in folders:
        if (folder / "tokenizer.json").is_file():
            from transformers import AutoTokenizer  # noqa: PLC0415 - an extra

            tokenizer = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
            ids = tokenizer(data.decode("utf-8", "replace"))["input_ids"]
            return torch.tensor(ids[:MOST_TOKENS])[None]
    if vocab_size == BYTES_VOCAB and len(data) > 1:
        return torch.tensor(list(data[:MOST_TOKENS]))[None]
    raise UsageError(
        what=f"`{text}` cannot be turned into tokens",
        why="neither side has a tokenizer.json, and the vocabulary is not that of bytes",
        fix="give no text: random tokens compare logits as well",
    )

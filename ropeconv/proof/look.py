"""Looks at a checkpoint's weights in a process of its own, and prints what they say as JSON.

Conversion and inspection never import torch: it costs two seconds and 200 MB, and a broken
installation must not break them. They start this module as a child instead.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from ropeconv.formats import discover
from ropeconv.proof.detect import LayoutEvidence, detect_layout
from ropeconv.proof.logits import load_tensor
from ropeconv.thinking.inventory import Inventory, take_stock

# Key heads looked at, in evenly spread layers: 16 heads of a small trained model give a z of
# 14.7 where 6 is asked for, and reading all of a 3 GB model's took 7 s of processor.
ENOUGH_KEY_HEADS = 48
FEWEST_LAYERS = 4


def look(root: Path) -> LayoutEvidence:
    """What the query and key weights of a checkpoint say about their layout.

    Raises:
        RopeconvError: the checkpoint cannot be read.
    """
    inventory = take_stock(discover(root), trust_stamp=True)
    return detect_layout(_layers(inventory), head_dim=inventory.geometry.head_dim)


def _layers(inventory: Inventory) -> Iterator[tuple[Tensor, Tensor]]:
    depth = inventory.geometry.num_layers
    count = min(depth, max(FEWEST_LAYERS, -(-ENOUGH_KEY_HEADS // inventory.geometry.num_kv_heads)))
    for layer in sorted({round(i * (depth - 1) / max(count - 1, 1)) for i in range(count)}):
        pair = [
            inventory.find(f"model.layers.{layer}.self_attn.{name}_proj.weight") for name in "qk"
        ]
        q, k = (load_tensor(inventory, tensor) for tensor in pair if tensor is not None)
        yield q, k


def main() -> None:
    """Print the evidence for the folder named on the command line."""
    found = look(Path(sys.argv[1]))
    best = max(found.z_by_hypothesis.values(), default=0.0)
    print(  # noqa: T201 - the parent reads it
        json.dumps(
            {
                "layout": found.verdict.name if found.verdict else "",
                "reordered": found.reordered,
                "z": best,
                "margin": found.margin,
                "num_heads": found.num_heads,
                "why": found.why,
            }
        )
    )


if __name__ == "__main__":
    main()

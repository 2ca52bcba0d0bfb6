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

MOST_LAYERS = 16  # evenly spread; released models have hundreds of heads in as many


def look(root: Path) -> LayoutEvidence:
    """What the query and key weights of a checkpoint say about their layout.

    Raises:
        RopeconvError: the checkpoint cannot be read.
    """
    inventory = take_stock(discover(root), trust_stamp=True)
    return detect_layout(_layers(inventory), head_dim=inventory.geometry.head_dim)


def _layers(inventory: Inventory) -> Iterator[tuple[Tensor, Tensor]]:
    depth = inventory.geometry.num_layers
    step = max(1, depth // MOST_LAYERS)
    for layer in range(0, depth, step):
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

"""What all tests share: fixtures of this repository, converted once for the whole run."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import settings

import ropeconv
import ropeconv.kernels  # before any test can import Triton: it decides the backend
from fixtures import make_small

# One machine's hiccup must not fail a property; the examples are the same in every run.
settings.register_profile("fixed", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("fixed")

# Workers side by side with several threads each wait for one another: the tests of families took
# 200 s on two cores, not 50. Processes that tests start inherit it.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")

SMALL = make_small.FOLDER
KJV = SMALL.parent / "kjv-llama"


def said_of(name: str) -> ropeconv.Said:
    """What a user must say: params.json of llama-tied states a scaling, but not its factor."""
    return ropeconv.Said(rope_factor=32.0) if name == "llama-tied" else ropeconv.Said()


@pytest.fixture(scope="session")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A small fixture in Hugging Face's format, by name; made once, and only to be read."""
    folder = tmp_path_factory.mktemp("converted")

    def make(name: str) -> Path:
        target = folder / name
        if not target.exists():
            source = KJV if name == "kjv-llama" else SMALL / name
            ropeconv.convert(source, target, ropeconv.HfOptions(), said=said_of(name))
        return target

    return make

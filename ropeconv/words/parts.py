"""The parts of a model, each of which has a row layout of its own."""

from __future__ import annotations

from enum import Enum


class Part(Enum):
    """What a layout belongs to: a tower rotates by its own code, whatever the text's does."""

    TEXT = "text"  # the language model, or the whole of a model that has no towers
    VISION = "vision"
    AUDIO = "audio"

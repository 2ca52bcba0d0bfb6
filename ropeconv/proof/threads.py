"""How many threads torch takes for small tensors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """One for as long as this lasts.

    The tensors of a score check are so small that threads wait for each other most of the time: on
    two cores that other programs use too, two take up to 11 s for a 1B model, and one takes 4.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)

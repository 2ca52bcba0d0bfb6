"""Where the kernels of this process run, decided once, before Triton is first imported.

Triton chooses between its compiler and its CPU interpreter when a kernel is defined, by the
environment variable TRITON_INTERPRET. The rule, in order:

1. TRITON_INTERPRET is set: it decides.
2. There is a CUDA device: kernels are compiled for it.
3. Neither: this process sets TRITON_INTERPRET=1 for itself, so that a proof runs on any machine. If
   Triton was imported before, its own functions are compiled ones already and cannot be
   interpreted: importing the kernels is then refused.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import Literal

import torch

from ropeconv.words.errors import Unsupported

Backend = Literal["cuda", "interpreter"]


def choose_backend() -> Backend:
    """Decide the backend, and prepare the environment for it.

    Raises:
        Unsupported: there is no Triton here, or it was imported too early to be interpreted.
    """
    if importlib.util.find_spec("triton") is None:
        raise Unsupported(
            what="triton is not installed",
            why="the rotation kernel is written in it; there is no silent other way",
            fix="on Linux, `pip install triton`; other systems have none, use a Linux container",
        )
    if "TRITON_INTERPRET" in os.environ:
        chosen = os.environ["TRITON_INTERPRET"].lower() in {"1", "true", "on", "yes", "y"}
        return "interpreter" if chosen else "cuda"
    if torch.cuda.is_available():
        return "cuda"
    if "triton" in sys.modules:
        raise Unsupported(
            what="triton was imported before `ropeconv.kernels`, and there is no CUDA device",
            why="its interpreter has to be chosen before its first import",
            fix="set TRITON_INTERPRET=1, or import `ropeconv.kernels` first",
        )
    os.environ["TRITON_INTERPRET"] = "1"
    return "interpreter"


BACKEND: Backend = choose_backend()

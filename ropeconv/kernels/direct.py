"""The end of a Triton launch without its beginning: a compiled kernel's launcher, called directly.

Triton's own entry binds and looks at each of 60 arguments, at more than half the cost of a call; a
compiled kernel's `[grid]` prepares metadata for hooks that nobody has set, at a sixth of it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import triton

from ropeconv.kernels.backend import BACKEND

# Versions in which `JITFunction.run` is known (read) to end with this very call: `kernel.run` of
# the grid, stream, function, packed metadata, three things for hooks, all arguments of the source.
_KNOWN = ((3, 4), (3, 9))

_VERSION = tuple(map(int, triton.__version__.split(".")[:2]))

DIRECT = BACKEND == "cuda" and _KNOWN[0] <= _VERSION <= _KNOWN[1]


def bind(
    compiled: Any,  # noqa: ANN401 - Triton is untyped
    grid: tuple[int, int, int],
    device: int,
    planned: tuple[Any, ...],
) -> Callable[..., None]:
    """A function of a kernel's last arguments that launches it on the current stream.

    Args:
        compiled: what a launch through Triton's own entry returned.
        grid: three sizes.
        device: the index of the device that it was compiled for, current when it is called.
        planned: the arguments before the last ones. Pointers may be whole numbers.
    """
    knobs = triton.knobs.runtime
    enter, leave = knobs.launch_enter_hook, knobs.launch_exit_hook
    on_entry, on_exit = (
        getattr(hook, "calls", () if hook is None else (hook,)) for hook in (enter, leave)
    )
    stream_of = triton.runtime.driver.active.get_current_stream
    through_triton = compiled[grid]
    on_stream: dict[int, Callable[..., None]] = {}

    def launch(*arguments: int) -> None:
        # Hooks, a profiler's for example, are Triton's own business.
        if (
            on_entry
            or on_exit
            or knobs.launch_enter_hook is not enter
            or knobs.launch_exit_hook is not leave
        ):
            through_triton(*planned, *arguments)
            return
        stream = stream_of(device)
        run = on_stream.get(stream)
        if run is None:
            run = on_stream[stream] = partial(
                compiled.run, *grid, stream, compiled.function, compiled.packed_metadata,
                None, None, None, *planned,
            )  # fmt: skip
        run(*arguments)

    return launch

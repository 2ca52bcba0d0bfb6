"""The end of a Triton launch without its beginning: a compiled kernel's launcher, called directly.

Triton's own entry binds and looks at each of 60 arguments, at more than half the cost of a call; a
compiled kernel's `[grid]` prepares metadata for hooks that nobody has set, at a sixth of it.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import partial
from typing import Any

import triton

from ropeconv.kernels.backend import BACKEND

_FIRST, _LAST = (3, 4), (3, 9)


def is_known(version: str) -> bool:
    """Whether `JITFunction.run` of that Triton ends with the very call that is made here.

    That is `kernel.run` of the grid, stream, function, packed metadata, three things for hooks, and
    all arguments of the source: read in each version. Others launch through Triton's own entry.
    """
    major, minor = version.split(".")[:2]
    return _FIRST <= (int(major), int(minor)) <= _LAST


DIRECT = BACKEND == "cuda" and is_known(triton.__version__)


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
            handles = compiled.function, compiled.packed_metadata
            leading = *grid, stream, *handles, None, None, None, *planned
            run = on_stream[stream] = _fill_in(compiled, leading, len(arguments))
        run(*arguments)

    return launch


def _fill_in(
    compiled: Any,  # noqa: ANN401 - as above
    leading: tuple[Any, ...],
    count: int,
) -> Callable[..., None]:
    """The launcher of a kernel with all but its last arguments filled in.

    A launcher is Python around a C function. Where all that its Python does is to put the same
    arguments before those that change, the C function itself is called: a third of a launch less.
    That is seen by letting a copy of the launcher call a function that only listens.
    """
    metadata = compiled.metadata
    scratch = ("global_scratch_size", "profile_scratch_size")  # allocated anew for each launch
    launcher = copy(compiled.run)
    function = getattr(launcher, "launch", None)
    if function is not None and not any(getattr(metadata, size, 0) for size in scratch):
        heard: list[tuple[Any, ...]] = []
        launcher.launch = lambda *arguments: heard.append(arguments)
        last = tuple(object() for _ in range(count))
        launcher(*leading, *last)
        if len(heard) == 1:
            if heard[0][-count:] == last:
                return partial(function, *heard[0][:-count])
            *own, end = heard[0]
            if isinstance(end, tuple) and end[-count:] == last:  # since Triton 3.7
                first = end[:-count]
                return lambda *arguments: function(*own, (*first, *arguments))
    return partial(compiled.run, *leading)

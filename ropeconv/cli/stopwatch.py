"""How long each part of a proof took, told from its events: the core itself has no clock."""

from __future__ import annotations

import time
from collections.abc import Callable

from ropeconv.words.events import CheckBegun, CheckDone, Event, LayerDone, LayersPlanned, Listener


class Stopwatch:
    """Hears the events of one proof, and passes them on.

    Attributes:
        seconds: by the name of a check, such as `scores`, or of a layer, such as `layer 3`.
    """

    def __init__(self, listen: Listener, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: dict[str, float] = {}
        self._listen = listen
        self._clock = clock
        self._check = ""
        self._check_begun = self._layer_begun = 0.0

    def __call__(self, event: Event) -> None:
        """Look at the clock."""
        match event:
            case CheckBegun():
                self._check, self._check_begun = event.name, self._clock()
            case CheckDone():
                self.seconds[event.name] = self._clock() - self._check_begun
            case LayersPlanned():
                self._layer_begun = self._clock()
            case LayerDone() if self._check == "scores":
                now = self._clock()
                self.seconds[f"layer {event.layer}"] = now - self._layer_begun
                self._layer_begun = now
            case _:
                pass
        self._listen(event)

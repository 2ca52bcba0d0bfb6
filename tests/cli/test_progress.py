"""What the command makes of the core's events: bars, lines and times."""

from __future__ import annotations

import sys
from itertools import count

import pytest

from ropeconv.cli import progress
from ropeconv.cli.progress import progress_of
from ropeconv.cli.speech import Speech
from ropeconv.cli.stopwatch import Stopwatch
from ropeconv.words.events import (
    BytesDone,
    CheckBegun,
    CheckDone,
    Event,
    LayerDone,
    LayersPlanned,
    WorkDone,
    WorkPlanned,
)

PROOF: tuple[Event, ...] = (
    CheckBegun(name="bytes"),
    WorkPlanned(title="comparing bytes", total_nbytes=5000),
    BytesDone(nbytes=5000),
    WorkDone(title="comparing bytes"),
    CheckDone(name="bytes"),
    CheckBegun(name="scores"),
    LayersPlanned(title="comparing scores", num_layers=2),
    LayerDone(layer=0),
    LayerDone(layer=7),
    WorkDone(title="comparing scores"),
    CheckDone(name="scores"),
)


def test_lines_count_layers_where_layers_take_the_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "PLAIN_LINE_SECONDS", -1.0)
    with progress_of(Speech()) as listen:
        for event in PROOF:
            listen(event)

    assert capsys.readouterr().err.splitlines() == [
        "comparing bytes: 5.0 KB of 5.0 KB",
        "comparing scores: 1 of 2 layers",
        "comparing scores: 2 of 2 layers",
    ]


def test_bar_counts_layers_where_layers_take_the_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for name, value in {"TERM": "xterm", "COLUMNS": "100", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    shown = []
    with progress_of(Speech()) as listen:
        for event in PROOF:
            listen(event)
            if listen._bar is not None:  # a thread of its own draws it, some time later
                listen._bar.refresh()
            shown.append(capsys.readouterr().err)

    assert "5.0/5.0 kB" in shown[2]
    assert "1/2 layers" in shown[7]
    assert not any("B/s" in text or "bytes" in text for text in shown[6:9])


def test_stopwatch_reads_its_clock_at_checks_and_layers_and_passes_all_on() -> None:
    heard: list[Event] = []
    seconds = count()
    watch = Stopwatch(heard.append, clock=lambda: float(next(seconds)))
    for event in (*PROOF, CheckBegun(name="logits"), LayersPlanned(title="x", num_layers=1)):
        watch(event)
    watch(LayerDone(layer=0))

    assert watch.seconds == {"bytes": 1.0, "layer 0": 1.0, "layer 7": 1.0, "scores": 4.0}
    assert heard[: len(PROOF)] == list(PROOF)

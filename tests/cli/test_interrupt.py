"""Ctrl-C: every command ends within a second, with words and 130, wherever it is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ropeconv.cli.stopping import AGAIN_SECONDS, insisting
from ropeconv.story.detection import Looking
from ropeconv.words.errors import Interrupted
from tests.conftest import SMALL

ROOT = Path(__file__).parents[2]
WITHIN_SECONDS = 5.0  # a second on a machine that does nothing else
# Says when torch begins to be imported, which is where a verify is for a second.
WATCHED = """
import sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            print("there", flush=True)
sys.meta_path.insert(0, Finder())
from ropeconv.cli.main import main
main()
"""


LOST = """
import sys, weakref
class Thing:
    pass
def interrupt(_):
    raise KeyboardInterrupt
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            thing = Thing()
            watch = weakref.ref(thing, interrupt)
            del thing
sys.meta_path.insert(0, Finder())
from ropeconv.cli.main import main
main()
"""


def test_ctrl_c_when_python_drops_it_in_a_callback_then_it_ends_all_the_same() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOST, "families"],
        capture_output=True, text=True, check=False, cwd=ROOT, timeout=60,
    )  # fmt: skip

    assert (done.returncode, done.stdout) == (130, "")
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize("module", ["typer", "ropeconv.story.verification", "torch", "triton"])
def test_ctrl_c_while_something_is_imported_ends_with_words_and_130(
    converted: Callable[[str], Path], module: str
) -> None:
    words = ("verify", "checkpoint", str(converted("llama")), "--against", str(SMALL / "llama"))
    child = subprocess.Popen(
        [sys.executable, "-c", WATCHED.format(module=module), *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env=os.environ | {"NO_COLOR": "1"},
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline() == "there\n"
    child.send_signal(signal.SIGINT)
    began = time.monotonic()
    out, err = child.communicate(timeout=60)

    assert (child.returncode, out) == (130, "")
    assert err == "error: stopped by the keyboard\nfix:   run the same command again\n"
    assert time.monotonic() - began < WITHIN_SECONDS


def test_ctrl_c_that_a_library_swallows_is_repeated() -> None:
    """As when an extension is imported: the exception is dropped, and the command would go on."""

    def swallow_one() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            time.sleep(10 * AGAIN_SECONDS)

    before = signal.getsignal(signal.SIGINT)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), insisting():
        swallow_one()

    assert AGAIN_SECONDS / 2 < time.monotonic() - began < 5 * AGAIN_SECONDS
    assert signal.getsignal(signal.SIGINT) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0), "no alarm rings later"


def test_conversion_that_waits_for_the_look_is_stopped(tmp_path: Path) -> None:
    """Its child may look for minutes; and a Ctrl-C that ended it is no `could not look`."""
    stop = threading.Event()
    stop.set()
    began = time.monotonic()
    with pytest.raises(Interrupted):
        Looking(tmp_path).result(stop)

    assert time.monotonic() - began < WITHIN_SECONDS

"""The library's advice in words of the command line.

Errors name settings as Python has them, for example `Handling(overwrite=True)`: whoever calls the
library has no options. Here those names become options, and nowhere else.
"""

from __future__ import annotations

import re

from ropeconv.words.errors import RopeconvError

OPTIONS = {
    "pass `logits=None`": "leave out --logits",
    "`look=False`": "--trust-declared-layout",
    "`allow_drift=True`": "--allow-replica-drift",
    "`Handling(overwrite=True)`": "--overwrite",
    "`Handling(restart=True)`": "--restart",
    "`Effort(jobs=...)`": "--jobs",
    "`MetaOptions(num_ranks=...)`": "--mp",
}
_SAID = re.compile(r"`Said\((\w+)=([^)`]+)\)`")
_PART = re.compile(r"`Part\.(\w+)`")


def as_options(text: str) -> str:
    """A text whose settings are named as options.

    >>> as_options("pass `Said(rope_factor=8)`; `Handling(restart=True)` begins afresh")
    'pass --rope-factor 8; --restart begins afresh'
    """
    for setting, option in OPTIONS.items():
        text = text.replace(setting, option)
    text = _SAID.sub(lambda found: f"--{found[1].replace('_', '-')} {found[2]}", text)
    return _PART.sub(lambda found: f"--part {found[1].lower()}", text)


def for_users(error: RopeconvError) -> RopeconvError:
    """The same error, in words of the command line."""
    texts = {name: as_options(getattr(error, name)) for name in ("what", "why", "fix")}
    return type(error)(**texts)

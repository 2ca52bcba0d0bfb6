"""Options that several commands share, each spelled once."""

# Typer reads annotations when the program runs: these names must exist then.

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from ropeconv.moving.effort import Io
from ropeconv.words.errors import UsageError

Json = Annotated[bool, typer.Option("--json", help="Print JSON lines on stdout, nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, notes or hints.")]
NoColor = Annotated[
    bool, typer.Option("--no-color", help="No colours; NO_COLOR in the environment does the same.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Report = Annotated[
    Path | None,
    typer.Option(
        "--report",
        metavar="FILE",
        help="Write the result to FILE, in the form of its ending: .json, .md; proofs have more.",
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs", metavar="N", min=1, max=64, help="Threads; the result does not depend on it."
    ),
]
IoKind = Annotated[
    Io,
    typer.Option(
        "--io", help="Through the page cache, or past it; auto: as the cache's state and size say."
    ),
]
Sync = Annotated[
    bool,
    typer.Option(
        "--sync/--no-sync",
        help="Flush every file to the disk before DST appears; without, the system does it later.",
    ),
]
Hash = Annotated[
    bool,
    typer.Option("--hash/--no-hash", help="Put the SHA-256 of every file into ropeconv.json."),
]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace the checkpoint at DST when the new one is complete."),
]
Restart = Annotated[
    bool,
    typer.Option(
        "--restart", help="Throw away what an interrupted run has done, and begin afresh."
    ),
]
Theta = Annotated[
    float | None,
    typer.Option("--theta", metavar="NUMBER", help="RoPE base, where params.json does not say."),
]
RopeFactor = Annotated[
    float | None,
    typer.Option(
        "--rope-factor",
        metavar="NUMBER",
        help="Factor of llama3 scaling: 8 (Llama 3.1, 3.3) or 32 (3.2 1B, 3B).",
    ),
]
ContextLength = Annotated[
    int | None,
    typer.Option("--context-length", metavar="N", min=1, help="Longest context, in tokens."),
]
FamilyFile = Annotated[
    Path | None,
    typer.Option(
        "--family", metavar="FILE", help="TOML description of a model type without a table."
    ),
]

Layers = Annotated[
    str | None,
    typer.Option(
        "--layers",
        metavar="LIST",
        help="Layers whose scores are compared, such as 0,5-7; bytes are always compared in full.",
    ),
]
Sample = Annotated[
    int | None,
    typer.Option(
        "--sample",
        metavar="N",
        min=1,
        help="Compare the scores of N layers only, evenly spread; not with --layers.",
    ),
]

UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def parse_layers(text: str | None) -> tuple[int, ...] | None:
    """Layer numbers from `0,5-7`; None for all.

    >>> parse_layers("0,5-7")
    (0, 5, 6, 7)

    Raises:
        UsageError: the text is no such list.
    """
    if text is None:
        return None
    layers: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,5})(?:-(\d{1,5}))?\s*", part)
        if match is None:
            raise UsageError(what=f"`{text}` is no list of layers", fix="write 0,5-7 for example")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise UsageError(what=f"`{part}` ends before it begins", fix="write 5-7, not 7-5")
        layers += range(first, last + 1)
    return tuple(layers)


def parse_size(text: str) -> int:
    """A size in bytes from `5GB`, `500 MB` or a plain number; units are decimal.

    >>> parse_size("5GB"), parse_size("1.5 MB")
    (5000000000, 1500000)

    Raises:
        UsageError: the text is no size.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(KB|MB|GB|TB|)", text.strip().upper())
    if match is None or float(match[1]) <= 0:
        raise UsageError(
            what=f"`{text}` is no size",
            fix="write a number with KB, MB, GB or TB, for example 5GB",
        )
    return int(float(match[1]) * UNITS[match[2]])

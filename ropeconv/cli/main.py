"""The command `ropeconv`: what it can do, and nothing of how."""

from __future__ import annotations

import sys
from io import TextIOWrapper
from typing import Annotated

import typer

from ropeconv.cli import convert_commands, families_command, inspect_command, verify_commands
from ropeconv.version import __version__

EXIT_CODES = (
    "Exit codes: 0 done or proved; 1 not the same model; 2 wrong usage; 3 inconclusive; 4 the"
    " source"
    " is unreadable, incomplete or hostile; 5 recognised but refused; 6 the target cannot be"
    " written; 70 a bug in ropeconv; 130 interrupted."
)

app = typer.Typer(
    name="ropeconv",
    help="Convert LLM checkpoints between RoPE row layouts and formats, and prove the result.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(convert_commands.app, name="convert")
app.add_typer(verify_commands.app, name="verify")
app.command("inspect", epilog=EXIT_CODES)(inspect_command.inspect_path)
app.command("families", epilog=EXIT_CODES)(families_command.families)


def _version(wanted: bool) -> None:  # noqa: FBT001 - Typer's signature of a callback
    if wanted:
        typer.echo(f"ropeconv {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Convert LLM checkpoints between RoPE row layouts and formats, and prove the result."""


def main() -> None:
    """The entry point."""
    if isinstance(sys.stdout, TextIOWrapper):  # names of files may hold bytes that are no text
        sys.stdout.reconfigure(errors="backslashreplace")
    app()

"""Groups of commands."""

from __future__ import annotations

import typer


def help_if_alone(context: typer.Context) -> None:
    """What a group does when none of its commands is named: show them, and exit as wrong usage."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)

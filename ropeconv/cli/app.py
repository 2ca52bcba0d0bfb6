"""The command `ropeconv`: what can be said to it. Nothing here knows how anything is done."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Annotated

import typer

from ropeconv.cli import convert_commands, families_command, inspect_command, verify_commands
from ropeconv.cli.groups import help_if_alone
from ropeconv.version import __version__
from ropeconv.words.errors import ExitCode, UsageError

EXIT_CODES = (
    "Exit codes: 0 done or proved; 1 not the same model; 2 wrong usage; 3 inconclusive; 4 the"
    " source is unreadable, incomplete or hostile; 5 recognised but refused; 6 the target cannot be"
    " written; 70 a bug in ropeconv; 130 interrupted."
)

# Rich's help cuts the names of options at 80 columns; Typer's own writes them out.
app = typer.Typer(
    name="ropeconv",
    help="Convert LLM checkpoints between RoPE row layouts and formats, and prove the result.",
    epilog=EXIT_CODES,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
app.add_typer(convert_commands.app, name="convert")
app.add_typer(verify_commands.app, name="verify")
app.command("inspect", epilog=EXIT_CODES, short_help="Say what a checkpoint is.")(
    inspect_command.inspect_path
)
app.command("families", epilog=EXIT_CODES, short_help="List and explain what is supported.")(
    families_command.families
)


def _version(wanted: bool) -> None:  # noqa: FBT001 - Typer's signature of a callback
    if wanted:
        print(f"ropeconv {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Convert LLM checkpoints between RoPE row layouts and formats, and prove the result."""
    del version  # its callback has exited
    help_if_alone(context)


def run() -> int:
    """Parse the command line, and do what it says.

    Returns:
        The exit code, where no command has exited with one.

    Raises:
        UsageError: the command line says what no command understands.
        KeyboardInterrupt: it was stopped before a command began.
    """
    # Typer does not export the parser's errors, and their home has moved with its versions; that
    # this one is one of them has stayed.
    parser_error: type[typer.BadParameter] = typer.BadParameter.__bases__[0]
    try:
        code = app(prog_name="ropeconv", standalone_mode=False)
    except typer.Abort:
        raise KeyboardInterrupt from None
    except parser_error as error:
        raise _wrong_usage(error) from None
    if code == ExitCode.INTERRUPTED:
        raise KeyboardInterrupt
    return int(code or 0)


def _wrong_usage(error: typer.BadParameter) -> UsageError:
    """The parser's sentences in our form: lower case, no full stop, names in backticks."""
    text = re.sub(r"'([^']*)'", r"`\1`", " ".join(error.format_message().split()))
    text = text.replace("Value error, ", "")
    text = re.sub(r"(^|: )([A-Z])(?=[a-z])", lambda found: found[0].lower(), text)
    what, _, near = re.sub(r"\.? \(?(Possible options:|Did you mean)", "\n", text).partition("\n")
    unknown = re.findall(r"[\w-]+", what)[-1]
    nearest = get_close_matches(unknown, re.findall(r"[\w-]+", near), n=1)
    command = error.ctx.command_path if error.ctx else "ropeconv"
    there_is = f"`{command} --help` lists what there is"
    return UsageError(
        what=re.sub(r"^no such option: (\S+)", r"there is no option `\1`", what.rstrip(".")),
        fix=f"did you mean `{nearest[0]}`? {there_is}" if nearest else there_is,
    )

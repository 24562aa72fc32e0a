"""Groups of commands: whole summaries in ``--help``, and hints for names of other tools."""

from typing import Any

import typer
from typer.core import TyperGroup

from fastdeploy_diffusion.cli.interruption import end_interrupted
from fastdeploy_diffusion.hints import find_hint

# From typer's click, which in newer versions is a copy of its own.
_UsageError: Any = typer.BadParameter.mro()[1]


class CommandGroup(TyperGroup):
    """Explains options and commands of other tools that are not there yet."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the commands with the first sentence of each, however long it is."""
        for command in self.commands.values():
            if command.help and not command.short_help:
                command.short_help = " ".join(command.help.split("\n\n")[0].split())
        super().format_commands(ctx, formatter)

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        """Read the options; typer imports pydantic for that, and would hide an interruption."""
        try:
            return super().make_context(*arguments, **options)
        except KeyboardInterrupt:
            end_interrupted()

    def invoke(self, ctx: Any) -> Any:
        """Run a command; explain an option of other tools that no command has."""
        try:
            return super().invoke(ctx)
        except _UsageError as error:
            _explain(error, getattr(error, "option_name", None))
            raise
        except KeyboardInterrupt:
            end_interrupted()

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find a command; explain one of other tools."""
        try:
            return super().resolve_command(ctx, args)
        except _UsageError as error:
            _explain(error, args[0])
            raise


def _explain(error: Any, name: str | None) -> None:
    hint = find_hint(name) if name else None
    if hint and hint.missing:
        error.message = f"{name}: {hint.missing}; {hint.fix}"
        error.possibilities = None

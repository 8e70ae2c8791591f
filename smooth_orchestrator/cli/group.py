"""`smooth-orchestrate PLAN`: the command that need not be named."""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Final

import click
from click.shell_completion import CompletionItem

__all__ = ["WORDS", "DeployByDefault"]

WORDS: Final = "smooth_orchestrator.words"
"""The key of `Context.meta` under which a command finds its words as they were given."""

_DEFAULT: Final = "deploy"
_SPELLINGS: Final = {"finalize": "finalise"}


class DeployByDefault(click.Group):
    """Commands in the order given; a first word that is none of them is the plan of a deploy."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take options that stand before the plan for those of `deploy`."""
        own = {name for parameter in self.get_params(ctx) for name in parameter.opts}
        if args and args[0].startswith("-") and args[0].partition("=")[0] not in own:
            args = [_DEFAULT, *args]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; what interrupts it is said by the caller, where click would write an empty line."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            raise click.Abort from interrupt

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of a deploy's life, not of the alphabet."""
        del ctx
        return [*self.commands]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the words name, or `deploy` for a plan."""
        named = self._named(ctx, args)
        ctx.meta[WORDS] = (*named[-1],)
        return named

    def _named(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        word = _SPELLINGS.get(args[0], args[0])
        args = [word, *args[1:]]
        if word in self.commands or word.startswith("-"):
            return super().resolve_command(ctx, args)
        if not Path(word).exists():
            if meant := _nearest(word, self.commands):
                ctx.fail(f'There is no command, and no plan, "{word}". Did you mean "{meant}"?')
            if args[1:] and not args[1].startswith("-"):
                ctx.fail(f'There is no command, and no plan, "{word}".')
        return _DEFAULT, self.commands[_DEFAULT], args

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete commands and options, beside them plans of this directory, and files where there is neither."""
        named = super().shell_complete(ctx, incomplete)
        # click has bash forget everything else where an item says that files are wanted.
        if not named:
            return [CompletionItem(incomplete, type="file")]
        plans = sorted(each.name for each in Path().glob("*.toml"))
        return named + [CompletionItem(each) for each in plans if each.startswith(incomplete)]


def _nearest(word: str, names: Iterable[str]) -> str | None:
    return next(iter(get_close_matches(word, names, n=1)), None)

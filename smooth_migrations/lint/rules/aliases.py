"""SM5: code that reaches another database than the one it is run for."""

from collections.abc import Iterator

from django.db.migrations.operations import RunPython

from smooth_migrations.lint.code import blind_queries
from smooth_migrations.lint.rules.base import Found, Rule
from smooth_migrations.lint.subject import Subject
from smooth_migrations.protocol.linting import Level

__all__ = ["IgnoresAlias"]


class IgnoresAlias(Rule):
    """A query that ignores the alias.

    A migration is run once for each database, and this query goes to `default` each time, or wherever the routers
    send it: the database that is migrated stays as it was, and the other one is written twice.

    Ask for the alias: `Model.objects.using(schema_editor.connection.alias)`, `instance.save(using=…)`, and
    `schema_editor.connection.cursor()`. Code that looks at `schema_editor.connection.alias` in an `if` is taken to
    know what it does. In a project with one database it makes no difference until there is a second one; a deploy
    binds `default` to the database that is migrated where the project has no routers (`bind_default`).
    """

    code, level = "SM501", Level.WARNING

    def look(self, subject: Subject) -> Iterator[Found]:
        """Yield the queries of RunPython, forwards and backwards, that name no alias."""
        for _, part in subject.parts:
            for code in (part.code, part.reverse_code) if isinstance(part, RunPython) else ():
                for blind in blind_queries(code):
                    more = f", and so do {blind.more} more below" if blind.more else ""
                    yield Found(
                        blind.line,
                        f"{blind.text} ignores the alias that the migration is run for{more}",
                        "use schema_editor.connection.alias",
                        file=blind.file,
                    )

"""What was asked of a database, so that another one can be asked the same: what follows from equal answers is equal."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Final

from django.db.backends.base.base import BaseDatabaseWrapper

from smooth_migrations.protocol.findings import Question

__all__ = ["Questions", "asking"]

_READS: Final = re.compile(r"\s*(SELECT|WITH)\b", re.IGNORECASE)
_MARKS: Final = ("SAVEPOINT", "RELEASE SAVEPOINT", "ROLLBACK TO SAVEPOINT")
# In whatever order it finds them; the answers are compared as text, as the server writes it.
_ANSWER: Final = """SELECT md5(coalesce(string_agg(answer::text, E'\\n' ORDER BY answer::text COLLATE "C"), ''))
FROM ({query}) AS answer"""


class Questions:
    """The statements that were sent to a database of PostgreSQL.

    Args:
        connection: the database's.
    """

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self._connection: Any = connection
        self._statements: dict[str, None] = {}
        self._are_reads = True

    def hear(
        self,
        execute: Callable[..., Any],
        sql: str,
        params: Sequence[object] | None,
        many: object,
        context: dict[str, Any],
    ) -> Any:  # noqa: ANN401 - as Django's
        """Note a statement, and send it."""
        if many or not _READS.match(sql):
            self._are_reads = self._are_reads and sql.startswith(_MARKS)
        else:
            # As the driver does, a percent sign alone is left where there are no parameters.
            self._statements[sql if params is None else self._connection.ops.compose_sql(sql, params)] = None
        return execute(sql, params, many, context)

    def told(self) -> tuple[Question, ...] | None:
        """Return them with the answers that the database gives now; None where one may have done more. Only reads."""
        if not self._are_reads or self._connection.vendor != "postgresql":
            return None
        asked = [_ANSWER.format(query=statement.strip().rstrip(";")) for statement in self._statements]
        with self._connection.cursor() as cursor:
            return tuple(Question(query, _answer(cursor, query)) for query in asked)


@contextmanager
def asking(connection: BaseDatabaseWrapper) -> Iterator[Questions]:
    """Note what is asked of a database within; of others than PostgreSQL nothing is noted, or told."""
    questions = Questions(connection)
    with connection.execute_wrapper(questions.hear) if connection.vendor == "postgresql" else nullcontext():
        yield questions


def _answer(cursor: Any, query: str) -> str:  # noqa: ANN401 - Django's
    cursor.execute(query, None)
    return str(cursor.fetchone()[0])

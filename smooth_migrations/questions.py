"""What was asked of a database, so that another one can be asked the same: what follows from equal answers is equal."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Final

from django.db import DatabaseError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from smooth_migrations.protocol.findings import Question

__all__ = ["Questions", "answer_of", "asking"]

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
            self._statements[self._whole(sql, params)] = None
        try:
            return execute(sql, params, many, context)
        except BaseException:
            # Whoever asked may live with that.
            self._are_reads = False
            raise

    def ask(self, sql: str, params: Sequence[object] | None) -> Question | None:
        """Return what a statement asks with the answer that the database gives now; None where it may do more."""
        if not _READS.match(sql):
            return None
        [asked] = self._asked([self._whole(sql, params)])
        return asked

    def told(self) -> tuple[Question, ...] | None:
        """Return them with the answers that the database gives now; None where one may have done more. Only reads."""
        if not self._are_reads or self._connection.vendor != "postgresql":
            return None
        try:
            with transaction.atomic(self._connection.alias):
                return self._asked(self._statements)
        except DatabaseError:
            return None

    def _whole(self, sql: str, params: Sequence[object] | None) -> str:
        # As the driver does, a percent sign alone is left where there are no parameters.
        return sql if params is None else str(self._connection.ops.compose_sql(sql, params))

    def _asked(self, statements: Iterable[str]) -> tuple[Question, ...]:
        queries = [_ANSWER.format(query=statement.strip().rstrip(";")) for statement in statements]
        return tuple(Question(query, answer_of(self._connection, query)) for query in queries)


@contextmanager
def asking(connection: BaseDatabaseWrapper) -> Iterator[Questions]:
    """Note what is asked of a database within; of others than PostgreSQL nothing is noted, or told."""
    questions = Questions(connection)
    with connection.execute_wrapper(questions.hear) if connection.vendor == "postgresql" else nullcontext():
        yield questions


def answer_of(connection: BaseDatabaseWrapper, query: str) -> str:
    """Return the answer to a question's query. Only reads."""
    with connection.cursor() as cursor:
        cursor.execute(query, None)
        (answer,) = cursor.fetchone() or ("",)
    return str(answer)

"""For a project's own tests of its migrations: that each goes back as it came, and what two releases see in between.

Every helper moves the database of a test, and back to where it was. It needs one that is in no transaction: Django's
`TransactionTestCase`, or with pytest-django `@pytest.mark.django_db(transaction=True)`.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO

from django.apps.registry import Apps
from django.core import mail
from django.core.management import call_command
from django.db import DEFAULT_DB_ALIAS, Error, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.exceptions import IrreversibleError
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder

from smooth_migrations.fingerprint import take
from smooth_migrations.management.commands import apply_migrations, finalise_migrations
from smooth_migrations.protocol.values import Before
from smooth_migrations.undo.emptiness import make_empty_again

__all__ = ["TwoReleases", "assert_all_reversible", "assert_reversible", "every_migration", "two_releases"]

Fill = Callable[[Apps], None]
"""Makes rows, with the models as they are right before a migration."""

_Key = tuple[str, str]
# What Django keeps of the moment, and what the product keeps for itself.
_NOT_COMPARED = "django_migrations"
_OURS = "smooth_"
_MOST_SHOWN = 20


@dataclass(frozen=True, slots=True)
class TwoReleases:
    """A database between two releases: it has the expand half of a migration.

    Args:
        old: the models as the release before knows them.
        new: the models as the next one does.
    """

    old: Apps
    new: Apps


def every_migration(*apps: str) -> list[_Key]:
    """Return the (app, name) of each migration, in the order of the project's graph; for `pytest.mark.parametrize`.

    Args:
        *apps: labels; of these apps alone, if any is given.
    """
    return [key for key in _order(MigrationLoader(None)) if not apps or key[0] in apps]


def assert_reversible(app: str, migration: str, *, using: str = DEFAULT_DB_ALIAS, fill: Fill | None = None) -> None:
    """Assert that a migration, undone, leaves schema and rows as they were before it.

    The database is moved to right before the migration, forwards and back; then to where it was. What depends on the
    migration is undone meanwhile, and with it the rows that only it knows.

    Args:
        app: the label.
        migration: its name, or the beginning of it.
        using: the alias.
        fill: makes rows for it, with the models as they are right before it.

    Raises:
        AssertionError: what differs; or the migration, or one that depends on it, has no way back.
    """
    connection = _connection(using)
    with _back_where_it_was(connection):
        key = _find(app, migration)
        _to_right_before(connection, key)
        if fill is not None:
            fill(_apps(connection, key, at_end=False))
        _assert_round_trip(connection, key)


def assert_all_reversible(
    *apps: str, using: str = DEFAULT_DB_ALIAS, skip: Collection[str] = (), fill: Fill | None = None
) -> None:
    """Assert the same of every migration of a project, from an empty database on; all that fail are told at once.

    The test's database is emptied for that, and migrated again afterwards, so that a migration without a way back is in
    no other one's way.

    Args:
        *apps: labels; of these apps alone, if any is given.
        using: the alias.
        skip: `app.name` of migrations that need no way back.
        fill: called before each of them; there may be rows by then.

    Raises:
        AssertionError: what differs, by migration.
        RuntimeError: this is no test's database.
    """
    connection = _connection(using)
    if not hasattr(mail, "outbox"):  # Django's setup_test_environment makes it
        raise RuntimeError("assert_all_reversible empties the database: it runs in a test environment alone")
    failures: list[str] = []
    with _putting_back(lambda: _migrate_anew(connection)):
        _empty(connection)
        for key in every_migration():
            is_asked = ".".join(key) not in skip and (not apps or key[0] in apps)
            try:
                _to_right_before(connection, key)
                if is_asked and fill is not None:
                    fill(_apps(connection, key, at_end=False))
                if is_asked:
                    _assert_round_trip(connection, key)
            except AssertionError as error:
                failures.append(str(error))
            try:
                _move(connection, [key] if key not in _applied(connection) else [], backwards=False)
            except Error as error:
                if not failures:
                    raise
                failures.append(f"{'.'.join(key)} cannot be applied once more, so that no later one was tried: {error}")
                break
        if failures:
            raise AssertionError("\n".join(failures))


@contextmanager
def two_releases(app: str, migration: str, *, using: str = DEFAULT_DB_ALIAS) -> Iterator[TwoReleases]:
    """Have the database between two releases for the length of a context: the migration is expanded, not contracted.

    That is where it stands from a deploy to its `finalise`, with both releases at work on it. In the end the rest is
    done, which the rows written meanwhile must let pass, and the database is where it was.

    Args:
        app: the label.
        migration: its name, or the beginning of it.
        using: the alias.

    Raises:
        CommandError: the migration cannot be split, or its second half fails.
    """
    connection = _connection(using)
    with _back_where_it_was(connection):
        key = _find(app, migration)
        _to_right_before(connection, key)
        old = _apps(connection, key, at_end=False)
        call_command(apply_migrations.Command(), *key, expand=True, database=using, interactive=False, verbosity=0)
        yield TwoReleases(old, _apps(connection, key, at_end=True))
        call_command(finalise_migrations.Command(), database=using, stdout=StringIO(), verbosity=0)


def _connection(using: str) -> BaseDatabaseWrapper:
    connection = connections[using]
    if connection.in_atomic_block:
        raise RuntimeError(
            "migrations cannot be tested within a transaction: use TransactionTestCase, or "
            "@pytest.mark.django_db(transaction=True)"
        )
    return connection


def _order(loader: MigrationLoader) -> list[_Key]:
    graph = loader.graph
    return [*dict.fromkeys(key for leaf in graph.leaf_nodes() for key in graph.forwards_plan(leaf))]


def _find(app: str, name: str) -> _Key:
    migration = MigrationLoader(None).get_migration_by_prefix(app, name)
    return migration.app_label, migration.name


def _applied(connection: BaseDatabaseWrapper) -> Collection[_Key]:
    return MigrationLoader(connection).applied_migrations


def _apps(connection: BaseDatabaseWrapper, key: _Key, *, at_end: bool) -> Apps:
    return MigrationLoader(connection).project_state(key, at_end=at_end).apps


def _to_right_before(connection: BaseDatabaseWrapper, key: _Key) -> None:
    graph = MigrationLoader(connection).graph
    *before, _itself = graph.forwards_plan(key)
    _move(connection, [each for each in graph.backwards_plan(key) if each in _applied(connection)], backwards=True)
    _move(connection, [each for each in before if each not in _applied(connection)], backwards=False)


def _move(connection: BaseDatabaseWrapper, keys: Collection[_Key], *, backwards: bool) -> None:
    if keys:
        executor = MigrationExecutor(connection)
        plan = [(executor.loader.graph.nodes[key], backwards) for key in keys]
        try:
            executor.migrate([*keys], plan=plan)
        except IrreversibleError as error:
            raise AssertionError(f"there is no way back: {error}") from error


@contextmanager
def _back_where_it_was(connection: BaseDatabaseWrapper) -> Iterator[None]:
    before = {*_applied(connection)}

    def put_back() -> None:
        order, applied = _order(MigrationLoader(None)), {*_applied(connection)}
        _move(connection, [key for key in order if key in before - applied], backwards=False)
        _move(connection, [key for key in reversed(order) if key in applied - before], backwards=True)

    with _putting_back(put_back):
        yield


@contextmanager
def _putting_back(put_back: Callable[[], None]) -> Iterator[None]:
    """Put a database back after a block; where that fails too, what the block has raised is what a test is told."""
    try:
        yield
    except BaseException as error:
        try:
            put_back()
        except Exception as second:  # noqa: BLE001 - told with the first one
            error.add_note(f"The database is not where it was: {type(second).__name__}: {second}")
        raise
    put_back()


def _migrate_anew(connection: BaseDatabaseWrapper) -> None:
    _empty(connection)
    call_command("migrate", database=connection.alias, run_syncdb=True, interactive=False, verbosity=0)


def _assert_round_trip(connection: BaseDatabaseWrapper, key: _Key) -> None:
    schema, rows = take(connection), _rows(connection)
    try:
        _move(connection, [key], backwards=False)
    except Error as error:
        raise AssertionError(f"{'.'.join(key)} cannot be applied where it was undone: {error}") from error
    _move(connection, [key], backwards=True)
    differences = [*schema.differences(take(connection)), *_differences(rows, _rows(connection))]
    if differences:
        more = [f"and {len(differences) - _MOST_SHOWN} more"] if len(differences) > _MOST_SHOWN else []
        lines = "\n  ".join([*differences[:_MOST_SHOWN], *more])
        raise AssertionError(f"{'.'.join(key)}, undone, leaves the database otherwise than it was:\n  {lines}")


def _rows(connection: BaseDatabaseWrapper) -> Counter[str]:
    found: Counter[str] = Counter()
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            if table != _NOT_COMPARED and not table.startswith(_OURS):
                cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")  # noqa: S608 - quoted
                names = [column[0] for column in cursor.description]
                for row in cursor.fetchall():
                    values = sorted(zip(names, row, strict=True))
                    found[f"row of {table}: " + ", ".join(f"{name}={value!r}" for name, value in values)] += 1
    return found


def _differences(before: Counter[str], after: Counter[str]) -> list[str]:
    gone = [f"- {row}" for row in (before - after).elements()]
    return sorted([*gone, *(f"+ {row}" for row in (after - before).elements())], key=lambda line: line[2:])


def _empty(connection: BaseDatabaseWrapper) -> None:
    before = Before()
    with connection.cursor() as cursor:
        tables = connection.introspection.table_names(cursor)
        if connection.vendor == "postgresql":
            # Extensions stay: to make them again may take a role that the tests do not have.
            cursor.execute("SELECT array(SELECT extname::text FROM pg_extension), current_schemas(false)::text[]")
            extensions, schemas = cursor.fetchone() or ((), ())
            before = Before(extensions=tuple(extensions), schemas=tuple(schemas))
    make_empty_again(connection, before, tables)
    MigrationRecorder(connection).ensure_schema()

"""Rows that Django's own receivers of `post_migrate` make, to be taken back with a run: content types, permissions."""

from collections.abc import Iterator, Mapping

from django.apps.registry import Apps
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper
from django.db.migrations.executor import MigrationExecutor
from django.db.models import Model
from django.db.transaction import atomic

from smooth_migrations.protocol.failpoints import passing
from smooth_migrations.protocol.values import Received

__all__ = ["dependents", "made_since", "remove_received", "take_received", "take_received_back"]

# In the order in which they are taken away: a permission refers to its content type.
_TABLES = {"permissions": "auth_permission", "content_types": "django_content_type"}
# But for what an expand half has made of them, which goes with that half.
_OURS = "model LIKE 'smooth!_%' ESCAPE '!'"
_THERE = {
    "permissions": "SELECT id, codename, name FROM auth_permission "  # noqa: S608 - constant names
    f"WHERE content_type_id NOT IN (SELECT id FROM django_content_type WHERE {_OURS}) ORDER BY id",
    "content_types": f"SELECT id FROM django_content_type WHERE NOT {_OURS} ORDER BY id",  # noqa: S608 - as above
}
_MODELS = {"permissions": ("auth", "Permission"), "content_types": ("contenttypes", "ContentType")}

There = Mapping[str, Mapping[int, tuple[str, ...]]]
"""By table the keys of its rows, and what is told of each beside."""


def take_received(connection: BaseDatabaseWrapper) -> There:
    """Return the rows that there are now. Only reads."""
    with connection.cursor() as cursor:
        there = _tables(connection, cursor)
        found: dict[str, Mapping[int, tuple[str, ...]]] = {}
        for name, table in _TABLES.items():
            rows = []
            if table in there:
                cursor.execute(_THERE[name])
                rows = cursor.fetchall()
            found[name] = {int(key): tuple(words) for key, *words in rows}
    return found


def _tables(connection: BaseDatabaseWrapper, cursor: CursorWrapper) -> set[str]:
    """Return which of the tables there are."""
    names = [*_TABLES.values()]
    if connection.vendor != "postgresql":
        return {*names} & {*connection.introspection.table_names(cursor)}
    # Django's own query looks at all relations; this finds the same along the search path.
    cursor.execute("SELECT name FROM unnest(%s::text[]) AS name WHERE to_regclass(name) IS NOT NULL", [names])
    return {name for (name,) in cursor.fetchall()}


def made_since(connection: BaseDatabaseWrapper, before: There) -> Received:
    """Return the rows that there are now and were not before, or are called otherwise. Only reads."""
    now = take_received(connection)
    made = {name: tuple(key for key in now[name] if key not in before[name]) for name in _TABLES}
    were = before["permissions"].items()
    renamed = tuple((key, names[0], names[1]) for key, names in were if now["permissions"].get(key, names) != names)
    return Received(**made, renamed=renamed)


def dependents(connection: BaseDatabaseWrapper, apps: Apps, received: Received) -> Iterator[tuple[str, int]]:
    """Yield the tables, and how many of their rows, that would go with such rows: who has been given a permission.

    Args:
        connection: the target's. Only reads.
        apps: of the moment at which they are taken away.
        received: the rows.
    """
    from django.db.models.deletion import Collector  # noqa: PLC0415 - few runs are taken back

    ours = {_TABLES["permissions"], _TABLES["content_types"]}
    for name, keys in _rows(received):
        model = _model(apps, name)
        if model is None:
            continue
        collector = Collector(using=connection.alias)
        collector.collect(model._base_manager.using(connection.alias).filter(pk__in=keys))  # noqa: SLF001
        for related, instances in collector.data.items():
            if related._meta.db_table not in ours:  # noqa: SLF001 - Django's public name for it
                yield related._meta.db_table, len(instances)  # noqa: SLF001 - as above
        for rows in collector.fast_deletes:
            if rows.model._meta.db_table not in ours and (count := rows.count()):  # noqa: SLF001 - as above
                yield rows.model._meta.db_table, count  # noqa: SLF001 - as above


def remove_received(connection: BaseDatabaseWrapper, apps: Apps, received: Received) -> None:
    """Take such rows away, with what depends on them, and rename back what was renamed. Safe to repeat.

    Args:
        connection: the target's, in a transaction.
        apps: of the moment.
        received: the rows.
    """
    with passing("remove_received"):
        for name, keys in _rows(received):
            model = _model(apps, name)
            if model is not None:
                model._base_manager.using(connection.alias).filter(pk__in=keys).delete()  # noqa: SLF001
        _rename_back(connection, apps, received)


def take_received_back(connection: BaseDatabaseWrapper, received: Received) -> None:
    """Take such rows away where the migrations have been taken back, in one transaction. Safe to repeat.

    Args:
        connection: the target's.
        received: the rows.
    """
    if received != Received():
        # The one way to this state that Django's own migrate takes.
        executor = MigrationExecutor(connection)
        state = executor._create_project_state(with_applied_migrations=True)  # type: ignore[attr-defined]  # noqa: SLF001
        with atomic(connection.alias):
            remove_received(connection, state.apps, received)


def _rename_back(connection: BaseDatabaseWrapper, apps: Apps, received: Received) -> None:
    """Give permissions the names back that they had, unless another one of the same model has that now."""
    model = _model(apps, "permissions")
    if model is None:
        return
    rows = model._base_manager.using(connection.alias)  # noqa: SLF001 - as Django's own receivers do
    for key, codename, name in received.renamed:
        kind = rows.filter(pk=key).values("content_type")
        if not rows.filter(codename=codename, content_type__in=kind).exclude(pk=key).exists():
            rows.filter(pk=key).update(codename=codename, name=name)


def _rows(received: Received) -> Iterator[tuple[str, tuple[int, ...]]]:
    for name in _MODELS:
        if keys := getattr(received, name):
            yield name, keys


def _model(apps: Apps, name: str) -> type[Model] | None:
    try:
        return apps.get_model(*_MODELS[name])
    except LookupError:
        return None

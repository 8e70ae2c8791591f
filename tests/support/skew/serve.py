"""A release at work: it writes and reads by its own models, all the time, until it is told to stop.

It is copied into a project, and knows nothing but that project's models. Every row says who wrote it and with which
stamp, and each of its values follows from these and from the field's type alone: so either release can tell whether a
row of the other is right, by whatever name it knows a field.
"""
# ruff: noqa: ANN401 - nothing is known of the project's models

import json
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

from django.apps import apps
from django.contrib.contenttypes.fields import GenericForeignKey
from django.db import OperationalError, connections, models, router, transaction

_HERE = Path(__file__).parent
_GIVEN = json.loads((_HERE / "given").read_text())
_LABEL: str = _GIVEN["label"]
# Fields of this release alone: what the other one's rows have there is theirs.
_OWN = {tuple(name.split(".")) for name in _GIVEN["own"]}
_SAME = ("new", "last") if _LABEL in {"new", "last"} else ("old", "back")
_SHOWN = 20
_MOST = 2
_WRITERS = ("old", "new", "back", "last")
_SMALLEST = 30_000
_DEADLOCK = 1213
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class _Here:
    """Where everything is written and read just now."""

    alias = "default"

    def db_for_read(self, _model: object, **_hints: object) -> str:
        return self.alias

    db_for_write = db_for_read


_here = _Here()
router.routers = [_here]
_errors: list[str] = []
_stamps = count(1)


def _expect(is_so: bool, what: object) -> None:  # noqa: FBT001
    if not is_so:
        _errors.append(str(what))


_VALUES: dict[type[Any], Callable[[str, int], Any]] = {
    models.CharField: lambda text, _: text,
    models.TextField: lambda text, _: text,
    models.SmallIntegerField: lambda _, number: number % _SMALLEST,
    models.IntegerField: lambda _, number: number,
    models.BooleanField: lambda _, number: bool(number % 2),
    models.DecimalField: lambda _, number: Decimal(number) / 4,
    models.FloatField: lambda _, number: number / 4,
    models.DateTimeField: lambda _, number: _EPOCH + timedelta(seconds=number),
    models.DateField: lambda _, number: (_EPOCH + timedelta(days=number)).date(),
    models.UUIDField: lambda _, number: UUID(int=number),
    models.JSONField: lambda _, number: {"number": number},
}


def _value(field: Any, by: str, stamp: int) -> Any:
    make = next(make for kind, make in _VALUES.items() if isinstance(field, kind))
    return make(f"{by}{stamp}", stamp * len(_WRITERS) + _WRITERS.index(by))


def _fields(model: Any) -> Iterator[Any]:
    """Yield the fields that are written by what they are, and not by what they refer to."""
    for field in model._meta.concrete_fields:
        is_made = isinstance(field, models.AutoField | models.CompositePrimaryKey) or field.generated
        if not is_made and not field.is_relation and field.name not in {"by", "stamp", "object_id"}:
            yield field


def _relations(model: Any) -> Iterator[Any]:
    for field in model._meta.concrete_fields:
        if field.is_relation and not field.remote_field.parent_link and field.related_model._meta.app_label == "demo":
            yield field


def _values(model: Any, stamp: int) -> dict[str, Any]:
    values = {field.name: _value(field, _LABEL, stamp) for field in _fields(model)}
    return {"by": _LABEL, "stamp": stamp, **values}


def _new(model: Any) -> Any:
    row = model(**_values(model, next(_stamps)))
    for field in _relations(model):
        setattr(row, field.name, _made(field.related_model))
    for field in model._meta.private_fields:
        if isinstance(field, GenericForeignKey):
            setattr(row, field.name, _made(apps.get_model("demo", model.TARGET)))
    return row


def _made(model: Any) -> Any:
    row = _new(model)
    row.save(force_insert=True)
    return row


def _is_known(row: Any, field: Any) -> bool:
    return row.by in _SAME or (type(row).__name__, field.name) not in _OWN


def _check(row: Any, *, written_here: bool = True) -> None:
    for field in _fields(type(row)):
        value = getattr(row, field.name)
        if _is_known(row, field):
            _expect(value == _value(field, row.by, row.stamp), (row.by, row.stamp, field.name, value))
    if written_here:
        for field in _relations(type(row)):
            if _is_known(row, field):
                _expect(getattr(row, field.name).by == row.by, (row.by, row.stamp, field.name))
        for field in type(row)._meta.private_fields:
            if isinstance(field, GenericForeignKey):
                _expect(getattr(row, field.name) is not None, (row.by, row.stamp, field.name))


def _parents(row: Any) -> list[Any]:
    return [getattr(row, field.name) for field in _relations(type(row))]


def _delete(row: Any) -> None:
    parents = _parents(row)
    row.delete()
    for parent in parents:
        _delete(parent)


def _once(model: Any) -> None:
    manager = model._default_manager
    row = _made(model)
    row.refresh_from_db()
    _check(row)
    changes = _values(model, next(_stamps))
    for name, value in changes.items():
        if name not in _keys(model):
            setattr(row, name, value)
    if not _keys(model):
        row.save()
        found = manager.get(pk=row.pk, **{field.name: getattr(row, field.name) for field in _sought(model)})
        _check(found)
        with transaction.atomic(_here.alias):
            manager.select_for_update(of=("self",) if _vendor() == "postgresql" else ()).get(pk=row.pk)
            manager.filter(pk=row.pk).update(**_values(model, next(_stamps)))
        row.refresh_from_db()
        _check(row)
        _in_bulk(model)
    for field in model._meta.many_to_many:
        related = getattr(row, field.name)
        others = [_made(field.related_model) for _ in range(_MOST)]
        related.set(others)
        related.remove(others[0])
        _expect(list(related.all()) == others[1:], (row.by, row.stamp, field.name))
        _expect(manager.filter(pk=row.pk, **{field.name: others[1]}).exists(), ("by", field.name))
        related.clear()
        for other in others:
            _delete(other)
    _delete(row)
    kept = _made(model)
    for field in model._meta.many_to_many:
        getattr(kept, field.name).add(_made(field.related_model))


def _vendor() -> str:
    return connections[_here.alias].vendor


def _keys(model: Any) -> set[str]:
    fields = [field for field in model._meta.pk_fields if not field.is_relation]
    return {field.name for field in fields if not isinstance(field, models.AutoField)}


def _sought(model: Any) -> list[Any]:
    return [field for field in _fields(model) if not isinstance(field, models.JSONField)]


def _in_bulk(model: Any) -> None:
    manager = model._default_manager
    if len(model._meta.get_parent_list()):
        return
    many = manager.bulk_create([_new(model) for _ in range(3)])
    if many[0].pk is None:
        return
    for each in many:
        for name, value in _values(model, next(_stamps)).items():
            setattr(each, name, value)
    names = list(_values(model, 0))
    manager.bulk_update(many, names)
    again = _values(model, next(_stamps))
    parents = {field.name: getattr(many[0], field.name) for field in _relations(model)}
    unique = None if _vendor() == "mysql" else ["pk"]
    if not list(model._meta.private_fields):
        manager.bulk_create(
            [model(pk=many[0].pk, **again, **parents)],
            update_conflicts=True,
            unique_fields=unique,
            update_fields=names,
        )
    for each in manager.filter(pk__in=[each.pk for each in many]):
        _check(each)
    found, is_new = manager.get_or_create(pk=many[1].pk)
    _expect(not is_new and found.by == _LABEL, "get_or_create")
    for each in many:
        _delete(each)


def _until_done(model: Any) -> None:
    """Begin anew where MariaDB wants that: of a transaction that has read a table whose change now waits for it."""
    while True:
        try:
            return _once(model)
        except OperationalError as error:
            if error.args[0] != _DEADLOCK:
                raise


def _look(model: Any, shown: int | None) -> None:
    rows = model._default_manager.order_by("-stamp")
    if shown is None and not _GIVEN["is_alone"]:
        rows = rows.filter(by=_LABEL)
    for row in rows[:shown]:
        _check(row, written_here=shown is None)
        for field in model._meta.many_to_many if shown is None else ():
            if _is_known(row, field):
                _expect(len(getattr(row, field.name).all()) <= _MOST, (row.by, field.name))


def _serve() -> None:
    mine = [model for model in apps.get_app_config("demo").get_models() if not model._meta.proxy]
    told: dict[str, Any] = {"rounds": 0, "errors": _errors}
    ends = (_HERE / "stop").exists
    while not ends():
        try:
            for _here.alias in connections:
                for model in mine:
                    _until_done(model)
                    _look(model, _SHOWN)
        except Exception:  # noqa: BLE001 - it is what is told
            _errors.append(f"{_here.alias}: {traceback.format_exc()}")
        told["rounds"] += 1
        (_HERE / "told.new").write_text(json.dumps(told))
        (_HERE / "told.new").replace(_HERE / "told")
        if _errors:
            return
    for _here.alias in connections:
        for model in mine:
            _look(model, None)
    (_HERE / "told").write_text(json.dumps(told))


_serve()

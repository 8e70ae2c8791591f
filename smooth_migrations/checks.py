"""System checks: helpers that do nothing, contradict each other, or have had their time.

`manage.py check` looks at the code. With `--database`, as before every `migrate`, the catalogue is read as well, of the
tables that have helpers alone.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from django.apps import AppConfig, apps
from django.core.checks import CheckMessage, Error, Tags, Warning, register  # noqa: A004 - Django's names
from django.db import connections, models, router
from django.db.backends.base.base import BaseDatabaseWrapper

from smooth_migrations.helpers.deprecated import DeprecatedField
from smooth_migrations.helpers.filled import NewField
from smooth_migrations.helpers.found import fields_of, is_backward_compatible, is_deprecated

__all__ = ["check_columns", "check_models", "register_checks"]

Model = type[models.Model]


def register_checks() -> None:
    """Have Django run them."""
    register(check_models, Tags.models)
    register(check_columns, Tags.database)


def check_models(app_configs: Sequence[AppConfig] | None, **_: object) -> list[CheckMessage]:
    """Look at the models' code."""
    checks: tuple[Callable[[Model], Iterator[CheckMessage]], ...] = (_meta, _relations, _new_fields, _decorator)
    return [message for model in _models(app_configs) for check in checks for message in check(model)]


def check_columns(
    app_configs: Sequence[AppConfig] | None, databases: Iterable[str] | None = None, **_: object
) -> list[CheckMessage]:
    """Look at the columns in these databases; reads the catalogue, and takes no locks that anybody waits for."""
    return [
        message
        for alias in databases or ()
        for message in _columns(
            connections[alias],
            [model for model in _models(app_configs) if router.allow_migrate_model(alias, model)],
        )
    ]


def _models(app_configs: Sequence[AppConfig] | None) -> list[Model]:
    configs = apps.get_app_configs() if app_configs is None else app_configs
    return [model for config in configs for model in config.get_models()]


def _meta(model: Model) -> Iterator[CheckMessage]:
    options = model._meta  # noqa: SLF001 - Django's public name for it
    latest = options.get_latest_by or ()
    named: set[object] = {latest} if isinstance(latest, str) else {*latest}
    named |= {*(options.ordering or ()), getattr(options, "order_with_respect_to", None) and _respected(model)}
    names = {name.lstrip("-").split("__")[0] for name in named if isinstance(name, str)}
    for field in [*options.fields, *options.many_to_many]:
        if (
            isinstance(field, DeprecatedField)
            and field.smooth_subject.is_refused
            and {field.name, field.attname} & names
        ):
            yield Error(
                f"{field} is deprecated, and the Meta of {options.label} uses it.",
                hint="Take it out of ordering, get_latest_by and order_with_respect_to: queries may not name it.",
                obj=model,
                id="smooth.E001",
            )
        if isinstance(field, DeprecatedField) and field in options.pk_fields:
            yield Error(
                f"{field} is deprecated, and part of the primary key of {options.label}.",
                hint="Every row is known by it: make another primary key first.",
                obj=model,
                id="smooth.E003",
            )


def _respected(model: Model) -> str:
    field: Any = model._meta.order_with_respect_to  # noqa: SLF001 - Django's public name for it
    return str(getattr(field, "name", field))


def _relations(model: Model) -> Iterator[CheckMessage]:
    if is_deprecated(model):
        return
    for field in fields_of(model):
        target = field.related_model
        if isinstance(target, type) and is_deprecated(target) and not isinstance(field, DeprecatedField):
            yield Warning(
                f"{field} refers to {target._meta.label}, which is deprecated.",  # noqa: SLF001 - Django's public name
                hint="Put it under deprecated_field: the table that it refers to goes with the next release.",
                obj=field,
                id="smooth.W004",
            )


def _new_fields(model: Model) -> Iterator[CheckMessage]:
    for field in fields_of(model):
        if not isinstance(field, NewField):
            continue
        if getattr(field.remote_field, "on_delete", None) is models.SET_NULL:
            yield Error(
                f"{field} is new and to be NOT NULL in the end, and deletes would set it to NULL.",
                hint="Choose another on_delete, or say null=True and leave new_field out.",
                obj=field,
                id="smooth.E002",
            )
        if field.smooth_was_nullable:
            yield Warning(
                f"{field} is under new_field and nullable anyway.",
                hint="Leave new_field out: a nullable column disturbs no release.",
                obj=field,
                id="smooth.W003",
            )
        elif not is_backward_compatible(model):
            yield Warning(
                f"{field} is under new_field, and nothing makes this release fill it.",
                hint=f"Decorate {model.__name__} with backward_compatible_model.",
                obj=field,
                id="smooth.W001",
            )


def _decorator(model: Model) -> Iterator[CheckMessage]:
    if is_backward_compatible(model) and not any(isinstance(field, NewField) for field in fields_of(model)):
        yield Warning(
            f"{model._meta.label} is under backward_compatible_model and has no new field.",  # noqa: SLF001 - as above
            hint="Take the decorator away.",
            obj=model,
            id="smooth.W002",
        )


def _columns(connection: BaseDatabaseWrapper, models: Sequence[Model]) -> Iterator[CheckMessage]:
    helped = [model for model in models if _has_helpers(model) and model._meta.managed]  # noqa: SLF001 - as above
    if not helped:
        return
    from django.db.migrations.recorder import MigrationRecorder  # noqa: PLC0415 - every process imports this module

    tables = {*connection.introspection.table_names()}
    applied = {label for label, _ in MigrationRecorder(connection).applied_migrations()}
    for model in helped:
        options = model._meta  # noqa: SLF001 - Django's public name for it
        if options.db_table in tables:
            yield from _columns_of(connection, model)
        elif is_deprecated(model) and not options.proxy and options.app_label in applied:
            yield _had_its_time(model, f"{options.label} is deprecated, and its table is gone from {connection.alias}.")


def _has_helpers(model: Model) -> bool:
    return is_deprecated(model) or any(isinstance(field, NewField | DeprecatedField) for field in fields_of(model))


def _columns_of(connection: BaseDatabaseWrapper, model: Model) -> Iterator[CheckMessage]:
    options = model._meta  # noqa: SLF001 - Django's public name for it
    with connection.cursor() as cursor:
        described = connection.introspection.get_table_description(cursor, options.db_table)
    is_nullable = {column.name: column.null_ok for column in described}
    for field in options.local_fields:
        if isinstance(field, DeprecatedField) and field.column not in is_nullable:
            yield _had_its_time(field, f"{field} is deprecated, and its column is gone from {connection.alias}.")
        elif isinstance(field, NewField) and field.column in is_nullable and not field.smooth_was_nullable:
            if is_nullable[field.column]:
                yield Warning(
                    f"{field} is under new_field, and its column has come to {connection.alias}.",
                    hint="Once no older release runs, take new_field away: makemigrations then makes it NOT NULL.",
                    obj=field,
                    id="smooth.W006",
                )
            else:
                message = f"{field} is under new_field, and NOT NULL in {connection.alias} already."
                yield _had_its_time(field, message, hint="Take new_field away.")


def _had_its_time(
    subject: object, message: str, *, hint: str = "Take it out of the code: its time is over."
) -> CheckMessage:
    return Warning(message, hint=hint, obj=subject, id="smooth.W005")

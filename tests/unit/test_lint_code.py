"""Which queries of a migration's code name no alias."""

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
from django.db import connection

from smooth_migrations.lint.code import blind_queries

Given: TypeAlias = Any
"""What Django gives to code of a migration."""

# --- queries that ignore it ------------------------------------------------------------------------------------------


def plain(apps: Given, _editor: Given) -> None:
    apps.get_model("demo", "Item").objects.filter(name="").delete()


def in_a_loop(apps: Given, editor: Given) -> None:
    items = apps.get_model("demo", "Item")
    for item in items.objects.all():
        item.save(using=editor.connection.alias)


def by_another_manager(apps: Given, _editor: Given) -> None:
    items = apps.get_model("demo", "Item")
    items._default_manager.update(name="")


def new_instance(apps: Given, _editor: Given) -> None:
    item = apps.get_model("demo", "Item")
    made = item(name="")
    made.save()


def new_instance_at_once(apps: Given, _editor: Given) -> None:
    apps.get_model("demo", "Item")(name="").save()


def own_connection(_apps: Given, _editor: Given) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def own_connection_imported_late(_apps: Given, _editor: Given) -> None:
    from django.db import connection as here  # noqa: PLC0415 - as many migrations do

    here.cursor().execute("SELECT 1")


def by_its_helper(apps: Given, editor: Given) -> None:
    plain(apps, editor)


async def asynchronous(apps: Given, _editor: Given) -> None:
    await apps.get_model("demo", "Item").objects.acreate(name="")


as_a_lambda = lambda apps, _editor: apps.get_model("demo", "Item").objects.all().delete()  # noqa: E731 - as some do
as_a_partial = functools.partial(plain, _editor=None)


# --- and queries that do not -----------------------------------------------------------------------------------------


def using(apps: Given, editor: Given) -> None:
    apps.get_model("demo", "Item").objects.using(editor.connection.alias).filter(name="").delete()


def using_late(apps: Given, editor: Given) -> None:
    apps.get_model("demo", "Item").objects.filter(name="").using(editor.connection.alias).delete()


def by_a_name(apps: Given, editor: Given) -> None:
    items = apps.get_model("demo", "Item").objects
    items.using(editor.connection.alias).delete()


def by_the_managers_database(apps: Given, editor: Given) -> None:
    items = apps.get_model("demo", "Item").objects.db_manager(editor.connection.alias)
    items.create(name="")


def as_a_part_of_another(apps: Given, editor: Given) -> None:
    item = apps.get_model("demo", "Item")
    item.objects.using(editor.connection.alias).filter(pk__in=item.objects.values("pk")).delete()


def handed_on(apps: Given, editor: Given) -> None:
    by_a_parameter(apps.get_model("demo", "Item").objects, editor.connection.alias)


def by_a_parameter(manager: Given, alias: str) -> None:
    manager.using(alias).delete()


def saved_there(apps: Given, editor: Given) -> None:
    made = apps.get_model("demo", "Item")(name="")
    made.save(using=editor.connection.alias)


def not_for_others(apps: Given, editor: Given) -> None:
    if editor.connection.alias != "default":
        return
    apps.get_model("demo", "Item").objects.all().delete()


def not_for_others_by_a_name(apps: Given, editor: Given) -> None:
    alias = editor.connection.alias
    if alias == "default":
        apps.get_model("demo", "Item").objects.all().delete()


def own_cursor(_apps: Given, editor: Given) -> None:
    with editor.connection.cursor() as cursor:
        cursor.execute("SELECT 1")


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (plain, "apps.get_model('demo', 'Item').objects"),
        (in_a_loop, "items.objects"),
        (by_another_manager, "items._default_manager"),
        (new_instance, "made.save"),
        (new_instance_at_once, "apps.get_model('demo', 'Item')(name='').save"),
        (own_connection, "connection.cursor"),
        (own_connection_imported_late, "here.cursor"),
        (by_its_helper, "apps.get_model('demo', 'Item').objects"),
        (asynchronous, "apps.get_model('demo', 'Item').objects"),
        (as_a_lambda, "apps.get_model('demo', 'Item').objects"),
        (as_a_partial, "apps.get_model('demo', 'Item').objects"),
    ],
)
def test_a_query_without_an_alias_is_found_at_its_line(code: Callable[..., Any], text: str) -> None:
    [blind] = blind_queries(code)
    assert (blind.text, blind.more) == (text, 0)
    line = blind.file.read_text(encoding="utf-8").splitlines()[blind.line - 1]
    assert text.partition("(")[0].partition(".")[0] in line


@pytest.mark.parametrize(
    "code",
    [
        using,
        using_late,
        by_a_name,
        by_the_managers_database,
        as_a_part_of_another,
        handed_on,
        saved_there,
        not_for_others,
        not_for_others_by_a_name,
        own_cursor,
        print,
        None,
    ],
)
def test_a_query_that_is_told_its_alias_is_none(code: object) -> None:
    assert [*blind_queries(code)] == []

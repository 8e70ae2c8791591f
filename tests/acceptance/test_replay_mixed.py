"""Migrations of every kind, replayed where that can be: the same as if each database had been migrated by itself."""

from pathlib import Path
from typing import Final

import pytest

from tests.support.dump import dump
from tests.support.many_databases import many_databases
from tests.support.postgres_server import PostgresServer
from tests.support.small_migrations import ITEM
from tests.support.small_project import migration

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

_CODE: Final = """
def forwards(apps, editor):
    alias = editor.connection.alias
    types, item = apps.get_model('contenttypes', 'ContentType'), apps.get_model('demo', 'Item')
    types.objects.using(alias).get_or_create(app_label='demo', model='ghost')
    kind = types.objects.db_manager(alias).get_for_model(item)
    apps.get_model('auth', 'Permission').objects.using(alias).get_or_create(
        content_type=kind, codename='fly', defaults={'name': 'Fly'}
    )
    item.objects.using(alias).create(name='from code')
"""
_INSTALLED = "'django.contrib.contenttypes', 'django.contrib.auth', 'django.contrib.sites', "
_F1, _F2 = (f"migrations.AddField('item', 'f{number}', models.IntegerField(default=1))" for number in (1, 2))
_RELEASE: Final = {
    "demo.0001_item": ITEM,
    "demo.0002_kind": migration(
        "migrations.CreateModel('Kind', [('id', models.BigAutoField(primary_key=True)), "
        "('note', models.CharField(max_length=9, unique=True))], options={'permissions': [('see', 'See it')]})",
        after=[("demo", "0001_item")],
    ),
    "demo.0003_code": migration(
        "migrations.RunPython(forwards, migrations.RunPython.noop)",
        "migrations.AddField('item', 'k', models.ForeignKey('demo.kind', models.SET_NULL, null=True))",
        after=[
            ("demo", "0002_kind"),
            ("contenttypes", "0002_remove_content_type_name"),
            ("auth", "0012_alter_user_first_name_max_length"),
        ],
        functions=_CODE,
    ),
    "demo.0004_renamed": migration(
        "migrations.RenameModel('Kind', 'Sort')",
        "migrations.AlterField('sort', 'note', models.CharField(max_length=30, unique=True, db_index=True))",
        "migrations.AddConstraint('sort', models.CheckConstraint(condition=models.Q(note__gt=''), name='filled'))",
        after=[("demo", "0003_code")],
    ),
    "demo.0005_sql": migration(
        "migrations.SeparateDatabaseAndState("
        "database_operations=[migrations.AddField('item', 'x', models.IntegerField(null=True))], "
        "state_operations=[migrations.AddField('item', 'x', models.IntegerField(null=True))])",
        "migrations.RunSQL('CREATE VIEW v AS SELECT 1 AS one', 'DROP VIEW v')",
        "migrations.AlterModelTable('item', 'things')",
        "migrations.AlterUniqueTogether('item', {('name', 'x')})",
        after=[("demo", "0004_renamed")],
    ),
    "demo.0006_fields": migration(
        "migrations.AddField('item', 'total', models.GeneratedField("
        "expression=models.F('x') * 2, output_field=models.IntegerField(), db_persist=True))",
        "migrations.AddField('item', 'm', models.ManyToManyField('demo.sort'))",
        "migrations.RemoveField('item', 'k')",
        "migrations.AddField('item', 'd', models.JSONField(default=dict))",
        after=[("demo", "0005_sql")],
    ),
}
_SQUASHED: Final = {
    "demo.0007_f1": migration(_F1, after=[("demo", "0006_fields")]),
    "demo.0008_f2": migration(_F2, after=[("demo", "0007_f1")]),
    "demo.0007_both": migration(_F1, _F2, after=[("demo", "0006_fields")]).replace(
        "    atomic =", "    replaces = [('demo', '0007_f1'), ('demo', '0008_f2')]\n    atomic ="
    ),
}


def _deployed(
    server: PostgresServer, directory: Path, release: dict[str, str], parallel: int, *options: str
) -> set[str]:
    """Return the dumps of three databases after a deploy."""
    directory.mkdir()
    with many_databases(directory, [server], 3, release) as many:
        for file, old, new in (
            ("deploy.toml", "parallel = 4", f"parallel = {parallel}"),
            ("project/small_settings.py", "INSTALLED_APPS = [", f"SITE_ID = 1\nINSTALLED_APPS = [{_INSTALLED}"),
        ):
            path = many.directory / file
            path.write_text(path.read_text().replace(old, new))
        outcome = many.run("deploy", *options)
        assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr[-3000:]
        return {dump(each.dsn, ignore_applied_times=True, sequences=False) for each in many.databases}


@pytest.mark.parametrize("further", [{}, _SQUASHED], ids=["plain", "squashed"])
@pytest.mark.parametrize("parallel", [1, 4])
def test_replay_on_and_off_give_the_same(
    pg_server: PostgresServer, tmp_path: Path, further: dict[str, str], parallel: int
) -> None:
    replayed = _deployed(pg_server, tmp_path / "on", _RELEASE | further, parallel)
    for_real = _deployed(pg_server, tmp_path / "off", _RELEASE | further, parallel, "--no-replay")

    assert replayed == for_real
    assert len(replayed) == 1

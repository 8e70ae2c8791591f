"""A release squashes migrations that every database has: it stands for them, and is recorded with them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.many_databases import ManyDatabases, many_databases
from tests.support.postgres_server import PostgresServer
from tests.support.small_migrations import ITEM, NOTE
from tests.support.small_project import migration

_LABEL = migration("migrations.AddField('item', 'label', models.TextField(default=''))", after=[("demo", "0002_note")])
_MORE = migration("migrations.AddField('item', 'more', models.IntegerField(null=True))", after=[("demo", "0003_label")])
_SQUASH = """
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = {atomic}
    replaces = [("demo", "0001_item"), ("demo", "0002_note")]
    operations = [
        migrations.CreateModel(
            "item",
            [
                ("id", models.BigAutoField(primary_key=True)),
                ("name", models.CharField(max_length=40)),
                ("note", models.CharField(max_length=40, default="none")),
            ],
        ),
    ]
"""


@pytest.fixture
def many(tmp_path: Path, pg_server: PostgresServer) -> Iterator[ManyDatabases]:
    release = {"demo.0001_item": ITEM, "demo.0002_note": NOTE, "demo.0003_label": _LABEL}
    with many_databases(tmp_path, [pg_server], 2, release) as many:
        assert many.run("deploy").exit_code == 0
        plan = many.directory / "deploy.toml"
        plan.write_text(plan.read_text().replace("expand_contract = false", "expand_contract = true"))
        yield many


def _write(many: ManyDatabases, name: str, text: str) -> None:
    (many.directory / f"project/demo/migrations/{name}.py").write_text(text)


def _recorded(many: ManyDatabases) -> list[set[str]]:
    rows = many.rows("SELECT name FROM django_migrations WHERE app = 'demo'")
    return [{str(name) for (name,) in each} for each in rows]


def test_what_comes_after_it_is_deployed(many: ManyDatabases) -> None:
    _write(many, "0001_squashed_0002_note", _SQUASH.format(atomic=True))
    _write(many, "0004_more", _MORE)

    planned = many.run("plan")
    done = many.run("deploy")

    assert [[each["migration"] for each in one["migrations"]] for one in planned.report["databases"]] == [
        ["demo.0004_more"]
    ] * 2
    assert (done.exit_code, done.report["outcome"]) == (0, "committed"), done.stderr
    names = {"0001_item", "0002_note", "0003_label", "0001_squashed_0002_note", "0004_more"}
    assert _recorded(many) == [names] * 2
    assert many.run("deploy").report["outcome"] == "nothing_to_do"


@pytest.mark.parametrize("atomic", [True, False])
def test_alone_it_is_recorded(many: ManyDatabases, *, atomic: bool) -> None:
    _write(many, "0001_squashed_0002_note", _SQUASH.format(atomic=atomic))

    planned = many.run("plan")
    done = many.run("deploy")

    for one in planned.report["databases"]:
        [each] = one["migrations"]
        assert (each["migration"], each["expand"], each["locks"]) == ("demo.0001_squashed_0002_note", [], [])
    assert (done.exit_code, done.report["outcome"]) == (0, "committed"), done.stderr
    assert _recorded(many) == [{"0001_item", "0002_note", "0003_label", "0001_squashed_0002_note"}] * 2
    assert many.run("deploy").report["outcome"] == "nothing_to_do"

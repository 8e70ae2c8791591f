"""An empty database that cannot be held in one transaction: several migrations of it have one commit."""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Final

import pytest

from tests.support.many_databases import ManyDatabases, many_databases
from tests.support.postgres_server import THROW_AWAY, PostgresServer
from tests.support.small_migrations import ITEM
from tests.support.small_project import migration

_OUTSIDE: Final = 11
_COUNT: Final = 14
_EXTRA: Final = "migrations.AddField('item', 'extra_{number}', models.IntegerField(null=True))"
_INDEX: Final = "AddIndexConcurrently('item', models.Index(fields=['extra_2'], name='item_extra'))"
_CODE: Final = "migrations.RunPython(look)"
# What another session sees of the migrations so far.
_LOOK: Final = """
import os

import psycopg


def look(apps, editor):
    told = {key.lower(): editor.connection.settings_dict[key] for key in ("HOST", "PORT", "USER", "PASSWORD")}
    where = {**told, "dbname": editor.connection.settings_dict["NAME"]}
    with psycopg.connect(**where) as session:
        seen = 0
        if session.execute("SELECT to_regclass('django_migrations')").fetchone() != (None,):
            (seen,) = session.execute("SELECT count(*) FROM django_migrations").fetchone()
    with open(os.environ["SMALL_SEEN"], "a") as file:
        print({number}, seen, file=file)
"""
# A value cannot be used in the transaction that made it, unless its type was made there too.
_MOODS: Final = {
    8: "migrations.RunSQL(\"CREATE TYPE mood AS ENUM ('glad')\", 'DROP TYPE mood')",
    9: "migrations.RunSQL(\"ALTER TYPE mood ADD VALUE 'sad'\", migrations.RunSQL.noop)",
    10: "migrations.RunSQL(\"CREATE TABLE moods (of mood DEFAULT 'sad')\", 'DROP TABLE moods')",
}


def _release(more: Mapping[int, str] = MappingProxyType({})) -> dict[str, str]:
    """Return migrations of which one commits by itself, with further operations of some, by their numbers."""
    release, before = {"demo.0001_item": ITEM}, "0001_item"
    for number in range(2, _COUNT + 1):
        name = f"{number:04}_extra"
        release[f"demo.{name}"] = migration(
            _INDEX if number == _OUTSIDE else _EXTRA.format(number=number),
            _CODE,
            *([more[number]] if number in more else []),
            after=[("demo", before)],
            atomic=number != _OUTSIDE,
            functions=_LOOK.replace("{number}", str(number)),
        )
        before = name
    return release


@contextmanager
def _empty(
    server: PostgresServer, directory: Path, release: dict[str, str], deploy: str = ""
) -> Iterator[ManyDatabases]:
    with many_databases(directory, [server], 1, release) as many:
        many.make_empty()
        plan = many.directory / "deploy.toml"
        wanted = f'minimum_atomicity = "compensated"\n{deploy}'
        plan.write_text(plan.read_text().replace('minimum_atomicity = "two_phase"', wanted))
        yield many


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "seen"
    monkeypatch.setenv("SMALL_SEEN", str(path))
    return path


def _told(seen: Path) -> list[tuple[int, int]]:
    lines = [line.split() for line in seen.read_text().splitlines()]
    return [(int(number), int(count)) for number, count in lines]


def _steps(many: ManyDatabases) -> int:
    """Return how many migrations the run's journal says to be permanent."""
    with closing(sqlite3.connect(many.directory / ".smooth/journal.db")) as journal:
        return int(journal.execute("SELECT count(*) FROM journal WHERE kind = 'step'").fetchone()[0])


def test_others_see_eight_at_a_time_and_all_before_what_commits_by_itself(
    pg_server: PostgresServer, tmp_path: Path, seen: Path
) -> None:
    with _empty(pg_server, tmp_path, _release()) as many:
        outcome = many.run("deploy")
        assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr[-3000:]
        counts = {number: 0 if number <= 8 else 8 for number in range(2, _OUTSIDE)}
        after = dict.fromkeys(range(_OUTSIDE + 1, _COUNT + 1), _OUTSIDE)
        assert _told(seen) == [*(counts | {_OUTSIDE: _OUTSIDE - 1} | after).items()]
        assert many.rows("SELECT count(*) FROM django_migrations") == [[(_COUNT,)]]
        assert _steps(many) == _COUNT


def test_where_that_was_asked_for_each_has_its_own(pg_server: PostgresServer, tmp_path: Path, seen: Path) -> None:
    with _empty(pg_server, tmp_path, _release(), 'atomicity = "compensated"') as many:
        assert many.run("deploy").exit_code == 0
        assert _told(seen) == [(number, number - 1) for number in range(2, _COUNT + 1)]
        assert _steps(many) == _COUNT


def test_what_one_transaction_cannot_hold_is_run_one_by_one(
    pg_server: PostgresServer, tmp_path: Path, seen: Path
) -> None:
    with _empty(pg_server, tmp_path, _release(_MOODS)) as many:
        outcome = many.run("deploy")
        assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr[-3000:]
        assert outcome.stderr.count('"tier.changed"') == 1
        again = [(number, number - 1) for number in range(9, _COUNT + 1)]
        assert _told(seen) == [*((number, 0) for number in range(2, 9)), (9, 8), (10, 8), *again]
        assert many.rows("INSERT INTO moods DEFAULT VALUES RETURNING of") == [[("sad",)]]
        assert _steps(many) == _COUNT


@pytest.mark.usefixtures("seen")
@pytest.mark.parametrize("at", [7, 10, _OUTSIDE, _COUNT])
@pytest.mark.parametrize("how", ["raise ValueError('no')", "os.kill(os.getpid(), 9)"], ids=["fails", "is killed"])
def test_what_fails_or_is_killed_amid_leaves_it_empty(
    pg_server: PostgresServer, tmp_path: Path, at: int, how: str
) -> None:
    with _empty(pg_server, tmp_path, _release()) as many:
        before = many.dumps()
        path = many.directory / f"project/demo/migrations/{at:04}_extra.py"
        whole = path.read_text()
        path.write_text(whole.replace("def look(apps, editor):\n", f"def look(apps, editor):\n    {how}\n"))
        outcome = many.run("deploy")
        assert (outcome.exit_code, outcome.report["outcome"]) == (1, "rolled_back"), outcome.stderr[-3000:]
        assert many.dumps() == before
        path.write_text(whole)
        assert many.run("deploy").exit_code == 0
        assert many.rows("SELECT count(*) FROM django_migrations") == [[(_COUNT,)]]


def test_without_room_for_the_locks_of_eight_each_has_its_own(tmp_path: Path, seen: Path) -> None:
    model = "migrations.CreateModel('Many{number}x{each}', [('id', models.BigAutoField(primary_key=True))])"
    made = {
        number: ", ".join(model.format(number=number, each=each) for each in range(10))
        for number in range(2, _COUNT + 1)
        if number != _OUTSIDE
    }
    settings = {"max_connections": "20", "max_locks_per_transaction": "10", "max_prepared_transactions": "0"}
    with PostgresServer(settings=THROW_AWAY | settings) as server, _empty(server, tmp_path, _release(made)) as many:
        outcome = many.run("deploy")
        assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr[-3000:]
        assert '"tier.changed"' not in outcome.stderr
        assert _told(seen) == [(number, number - 1) for number in range(2, _COUNT + 1)]


@pytest.mark.usefixtures("seen")
def test_one_that_commits_those_before_it_and_is_killed_leaves_it_empty(
    pg_server: PostgresServer, tmp_path: Path
) -> None:
    ends = "migrations.RunSQL('COMMIT'), migrations.RunPython(die)"
    dies = f"{_LOOK.replace('{number}', '3')}\n\ndef die(apps, editor):\n    os.kill(os.getpid(), 9)\n"
    release = _release()
    release["demo.0003_extra"] = migration(
        _EXTRA.format(number=3), _CODE, ends, after=[("demo", "0002_extra")], functions=dies
    )
    with _empty(pg_server, tmp_path, release) as many:
        before = many.dumps()
        outcome = many.run("deploy")
        assert (outcome.exit_code, outcome.report["outcome"]) == (1, "rolled_back"), outcome.stderr[-3000:]
        assert many.dumps() == before


@pytest.mark.usefixtures("seen")
@pytest.mark.parametrize("state", ["53200", "55P03", "55P04"])
def test_one_outside_a_transaction_is_not_done_again_on_top_of_what_it_had_done(
    pg_server: PostgresServer, tmp_path: Path, state: str
) -> None:
    # The first time it fails, and would not a second time.
    fails = f"""
def fails(apps, editor):
    if not os.path.exists("failed"):
        open("failed", "w").close()
        editor.execute("DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{state}'; END $$")
"""
    release = _release()
    operations = (_EXTRA.format(number=_OUTSIDE), "migrations.RunPython(fails)")
    release[f"demo.{_OUTSIDE:04}_extra"] = migration(
        *operations, after=[("demo", f"{_OUTSIDE - 1:04}_extra")], atomic=False, functions=f"import os\n{fails}"
    )
    with _empty(pg_server, tmp_path, release) as many:
        before = many.dumps()
        outcome = many.run("deploy")
        assert (outcome.exit_code, outcome.report["outcome"]) == (1, "rolled_back"), outcome.stderr[-3000:]
        assert outcome.report["error"]["sqlstate"] == state
        assert many.dumps() == before
        assert many.run("deploy").exit_code == 0

"""`apply_migrations` whose connection is cut at a commit: the database is old or new, and the exit code says which."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.support.dump import dump
from tests.support.fault_proxy import Fault, FaultProxy, Harm
from tests.support.postgres_database import PostgresDatabase, temporary_database
from tests.support.postgres_server import PostgresServer
from tests.support.small_migrations import BUILD, ITEM, KIND, NOTE
from tests.support.small_project import Result, SmallProject, migration

_REGISTER: Final = """
from pathlib import Path

from smooth_migrations import on_rollback


def register(apps, editor):
    on_rollback(Path("taken_back").touch)


def nothing(apps, editor):
    pass
"""
_LATER: Final = migration(
    "migrations.AddField('item', 'later', models.IntegerField(null=True))",
    "migrations.RunPython(register, nothing)",
    after=[("demo", "0003_kind")],
    functions=_REGISTER,
)
_RELEASES: Final = {
    "held": {"demo.0002_note": NOTE, "demo.0003_kind": KIND, "demo.0004_later": _LATER},
    # What is held before a migration that cannot be is committed first, each operation of that one then, and its end.
    "apart": {
        "demo.0002_note": NOTE,
        "demo.0003_kind": KIND.replace("atomic = True", "atomic = False"),
        "demo.0004_later": _LATER,
    },
    "index": {"demo.0002_note": BUILD},
}
_COMMITS: Final = {"held": 1, "apart": 5}
_LOCKS: Final = "SELECT mode FROM pg_locks WHERE relation = 'demo_item'::regclass AND pid <> pg_backend_pid()"
_LOST: Final = (Harm.REQUEST_LOST, Harm.REPLY_LOST, Harm.REQUEST_LATE, Harm.HALF_CLOSED)


class _Shop:
    def __init__(self, directory: Path, database: PostgresDatabase, proxy: FaultProxy, release: str) -> None:
        self.database, self.proxy = database, proxy
        self.called = directory / "taken_back"
        reached = {**database.django, "PORT": str(proxy.port)}
        self._project = SmallProject(directory, {"default": reached}, {"demo.0001_item": ITEM})
        self._project.succeed("apply_migrations", "-v0")
        for key, source in _RELEASES[release].items():
            self._project.write_migration(key, source)

    def apply(self) -> Result:
        return self._project.run("apply_migrations")

    def written_down(self) -> str:
        # What was taken back has used up numbers.
        return dump(self.database.dsn, ignore_applied_times=True, blank={"django_migrations": {"id"}}, sequences=False)


@contextmanager
def _shop(server: PostgresServer, directory: Path, release: str) -> Iterator[_Shop]:
    with temporary_database(server) as database, FaultProxy(server.port) as proxy:
        yield _Shop(directory, database, proxy, release)


@pytest.fixture(scope="module")
def after(pg_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What an undisturbed call makes of each release."""
    found = {}
    for release in _COMMITS:
        with _shop(pg_server, tmp_path_factory.mktemp(release) / "shop", release) as shop:
            assert shop.apply().returncode == 0
            found[release] = shop.written_down()
    return found


_SHORT: Final = {("held", 1, Harm.REPLY_LOST), ("apart", 1, Harm.REPLY_LOST), ("apart", 3, Harm.REQUEST_LATE)}


@pytest.mark.parametrize(
    ("release", "nth", "harm"),
    [
        pytest.param(
            release,
            nth,
            harm,
            marks=() if (release, nth, harm) in _SHORT else pytest.mark.long,
            id=f"{release}-{nth}-{harm.name}",
        )
        for release, count in _COMMITS.items()
        for nth in range(1, count + 1)
        for harm in _LOST
    ],
)
def test_the_exit_code_says_what_became_of_a_commit_that_gave_no_answer(
    pg_server: PostgresServer, tmp_path: Path, after: dict[str, str], release: str, nth: int, harm: Harm
) -> None:
    with _shop(pg_server, tmp_path / "shop", release) as shop:
        before = shop.written_down()
        fault = shop.proxy.arm(Fault("^COMMIT$", harm, nth=nth))
        result = shop.apply()
        fault.wait()
        shop.proxy.disarm()
        # What is late may have come when that session is looked for, or not.
        came = {Harm.REQUEST_LOST: False, Harm.REQUEST_LATE: result.returncode == 0}.get(harm, True)
        is_new = came and nth == _COMMITS[release]
        assert result.returncode == (0 if is_new else 1), result.stderr
        assert shop.written_down() == (after[release] if is_new else before)
        assert shop.called.exists() is (nth == _COMMITS[release] and not is_new)
        assert shop.apply().returncode == 0
        assert shop.written_down() == after[release]


@pytest.mark.parametrize("release", _COMMITS)
def test_a_last_commit_that_nobody_can_be_asked_about_needs_an_operator(
    pg_server: PostgresServer, tmp_path: Path, after: dict[str, str], release: str
) -> None:
    with _shop(pg_server, tmp_path / "shop", release) as shop:
        fault = Fault("^COMMIT$", Harm.REPLY_LOST, nth=_COMMITS[release], meanwhile=shop.proxy.refuse)
        shop.proxy.arm(fault)
        result = shop.apply()
        fault.wait()
        assert result.returncode == 4
        assert "nobody knows whether the last transaction was committed" in result.stderr
        assert not shop.called.exists()
        shop.proxy.accept()
        assert shop.apply().returncode == 0
        assert shop.written_down() == after[release]


@pytest.mark.parametrize(
    ("release", "statement", "nth"),
    [
        pytest.param("index", "^CREATE INDEX CONCURRENTLY", 1, id="index"),
        pytest.param("held", "^ALTER TABLE", 2, id="held"),
    ],
)
def test_a_session_that_was_lost_does_and_locks_nothing_when_the_call_has_ended(
    pg_server: PostgresServer, tmp_path: Path, release: str, statement: str, nth: int
) -> None:
    has_ended = threading.Event()
    with _shop(pg_server, tmp_path / "shop", release) as shop:
        before = shop.written_down()
        late = shop.proxy.arm(Fault(statement, Harm.REQUEST_LATE, nth=nth, meanwhile=has_ended.wait))
        result = shop.apply()
        with shop.database.connect() as session:
            locks = session.execute(_LOCKS).fetchall()
        has_ended.set()
        late.wait()
        assert result.returncode == 1
        assert locks == []
        assert shop.written_down() == before

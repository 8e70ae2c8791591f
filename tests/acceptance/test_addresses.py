"""A database that only its project's environment opens is reached by its workers; one at no address is refused."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.many_databases import ManyDatabases, many_databases
from tests.support.postgres_server import THROW_AWAY, PostgresServer
from tests.support.small_migrations import ITEM, NOTE

_RELEASE = {"demo.0001_item": ITEM, "demo.0002_note": NOTE}


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer(settings=THROW_AWAY, auth="scram", max_prepared_transactions=10) as server:
        yield server


@pytest.fixture
def many(tmp_path: Path, server: PostgresServer) -> Iterator[ManyDatabases]:
    with many_databases(tmp_path, [server], 3, _RELEASE) as many:
        yield many


def _with_env(many: ManyDatabases, name: str, value: str) -> None:
    plan = many.directory / "deploy.toml"
    text = plan.read_text()
    assert "env = {" in text
    plan.write_text(text.replace("env = {", f'env = {{ {name} = "{value}",'))


@pytest.mark.parametrize("where", ["PGPASSWORD", "PGPASSFILE", "HOME", "several hosts"])
def test_what_the_workers_alone_can_open_is_committed_by_them(
    many: ManyDatabases, server: PostgresServer, where: str
) -> None:
    if where == "several hosts":
        many.set(HOST="127.0.0.1,localhost")
    else:
        many.set(PASSWORD="")
        passwords = many.directory / ".pgpass"
        passwords.write_text(f"*:*:*:*:{server.password}\n")
        passwords.chmod(0o600)
        told = {"PGPASSWORD": server.password, "PGPASSFILE": passwords, "HOME": many.directory}
        _with_env(many, where, str(told[where]))

    done = many.run("deploy")

    assert (done.exit_code, done.report["outcome"]) == (0, "committed"), done.stderr
    assert {each["tier"] for each in done.report["databases"]} == {"two_phase"}
    assert (many.new(), many.prepared()) == (3, [])


@pytest.mark.parametrize(("key", "value"), [("PORT", "543211"), ("HOST", "db..internal"), ("HOST", "h" * 64)])
def test_what_is_no_address_is_refused(many: ManyDatabases, key: str, value: str) -> None:
    many.set("shard_1", **{key: value})

    refused = many.run("deploy")

    assert (refused.exit_code, refused.report["outcome"]) == (3, "refused"), refused.stderr
    assert [each["place"] for each in refused.report["errors"]] == ["shards:shard_1"]
    assert "Traceback" not in refused.stderr
    assert all(json.loads(line) for line in refused.stderr.splitlines())
    assert many.new() == 0


def test_a_password_may_be_written_as_a_number(many: ManyDatabases, server: PostgresServer) -> None:
    with server.connect() as session:
        session.execute("CREATE ROLE numbered SUPERUSER LOGIN PASSWORD '20261130'")
    many.set("shard_1", USER="numbered", PASSWORD=20261130)

    done = many.run("deploy")

    assert (done.exit_code, done.report["outcome"]) == (0, "committed"), done.stderr
    assert (many.new(), many.prepared()) == (3, [])

"""No secret stands in anything that a command writes: its output, its logs, its journal, the databases, the report.

Marked passwords are planted in the settings, in the environment, in an address of the journal, and in what migrations
and gates print and raise. What every command has written afterwards, and what it has left in files, holds none of them.
"""

import os
import re
import stat
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.deploys import Fleet, small_fleet
from tests.support.postgres_database import PostgresDatabase
from tests.support.postgres_server import THROW_AWAY, PostgresServer
from tests.support.runs import SCRIPT
from tests.support.small_project import migration

pytestmark = pytest.mark.timeout(180)

# Each of the planted ones holds it, whatever quotation makes of the rest.
_MARK = b"Zq8"
_ENVIRONMENT = {
    # Named in the plan, for its project.
    "SMALL_VALUE": "Zq8'of\"a value",
    "SMALL_URL": "postgresql://shop:Zq8%2Fof-a-url@db.example/shop",
    # Only inherited, by workers and gates.
    "DEPLOY_PASSWORD": "Zq8 of the pipeline",
    "REGISTRY_TOKEN": "Zq8-of-a-registry",
    "CACHE_URL": "redis://:Zq8-of-a-cache@cache.example/0",
}
_KEY = "Zq8-of-the-settings"
_SETTINGS = """
EMAIL_HOST_PASSWORD = "Zq8 of-the-mail"
CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache", "LOCATION": "redis://:Zq8%2Flocal@c/0"}}
SERVICES = [{"auth_token": "Zq8-of-a-service"}]
"""
_MISTYPED = "Zq8'mistyped\"%@"
_WORDS = (
    "' '.join([*(os.environ[name] for name in "
    f"{sorted(_ENVIRONMENT)!r}), unquote(os.environ['SMALL_URL'].split(':')[2].split('@')[0]), settings.SECRET_KEY, "
    "settings.EMAIL_HOST_PASSWORD, unquote(str(settings.CACHES)), str(settings.SERVICES), "
    "str(settings.DATABASES['shard_1']), settings.DATABASES['shard_1']['PASSWORD']])"
)
# What it says depends on these files in the project's directory.
_RAISES, _RAISES_BACK = "raises", "raises-back"
_FUNCTIONS = f"""\
from urllib.parse import unquote

from django.conf import settings


def _say(name):
    words = {_WORDS}
    print(words, flush=True)
    if os.path.exists(name):
        raise ValueError(words)


def forwards(apps, editor):
    _say({_RAISES!r})


def back(apps, editor):
    _say({_RAISES_BACK!r})

"""
_SPEAKS = migration(
    "migrations.AddField('item', 'note', models.CharField(max_length=40, default='none'))",
    "migrations.RunPython(forwards, back)",
    after=[("demo", "0001_item")],
    functions=_FUNCTIONS,
)
_GATE = f"""\
#!/bin/sh
env
echo {" ".join(f'"${name}"' for name in _ENVIRONMENT)}
test ! -e refuse
"""
_DEPLOY = 'expand_contract = false\nsettle_timeout = "1s"\nlock_retries = 0'


@dataclass
class _Pipeline:
    """Runs commands as a pipeline does, and keeps what they write.

    Args:
        fleet: over which.
        as_json: whether for a machine.
    """

    fleet: Fleet
    as_json: bool
    written: list[bytes] = field(default_factory=list)

    def run(self, command: str, *options: str, exits: int = 0, failpoint: str = "") -> None:
        """Run a command to its end, and assert that it exits so."""
        words = [SCRIPT, command, "deploy.toml", *options, "--log-file", f"{command}.log", "--log-level", "debug"]
        done = subprocess.run(
            [*words, *(["--json"] if self.as_json else ["--log-format", "console"])],
            cwd=self.fleet.directory,
            env=os.environ | self.fleet.environment | _ENVIRONMENT | {"SMOOTH_FAILPOINT": failpoint},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=90,
        )
        assert done.returncode == exits, (done.stdout + done.stderr).decode()
        self.written += [done.stdout, done.stderr]

    def look(self, *, exits: int = 0, history: int = 0) -> None:
        """Run every command that only looks."""
        for command in ("plan", "check", "status"):
            self.run(command, exits=exits)
        self.run("runs")
        self.run("report", exits=history)

    def touch(self, *names: str) -> None:
        """Let the project, or the gate, fail."""
        for name in names:
            (self.fleet.directory / name).touch()

    def remove(self, *names: str) -> None:
        """Let it succeed again."""
        for name in names:
            (self.fleet.directory / name).unlink()


def _mistype(pipeline: _Pipeline) -> None:
    pipeline.fleet.databases["shard_1"]["PASSWORD"] = _MISTYPED


def _deploys(pipeline: _Pipeline) -> None:
    pipeline.run("deploy")
    pipeline.look()


def _fails_in_a_migration(pipeline: _Pipeline) -> None:
    pipeline.touch(f"project/{_RAISES}")
    pipeline.run("deploy", exits=1)
    pipeline.look(history=1)


def _fails_at_a_gate(pipeline: _Pipeline) -> None:
    pipeline.touch("refuse")
    pipeline.run("deploy", exits=1)
    pipeline.look(history=1)


def _rehearses(pipeline: _Pipeline) -> None:
    pipeline.run("rehearse")
    pipeline.touch(f"project/{_RAISES}")
    pipeline.run("rehearse", exits=3)
    pipeline.look(history=3)


def _rolls_back(pipeline: _Pipeline) -> None:
    pipeline.run("deploy")
    pipeline.touch(f"project/{_RAISES_BACK}")
    pipeline.run("rollback", exits=1)
    pipeline.remove(f"project/{_RAISES_BACK}")
    pipeline.run("rollback")
    pipeline.look()


def _recovers(pipeline: _Pipeline) -> None:
    # What was only held open is run again.
    _plan(pipeline.fleet, servers='atomicity = "held_open"')
    pipeline.run("deploy", exits=-9, failpoint="journal.decision.after")
    right = pipeline.fleet.databases["shard_1"]["PASSWORD"]
    _mistype(pipeline)
    pipeline.run("recover", exits=4)
    pipeline.look(exits=3, history=4)
    pipeline.fleet.databases["shard_1"]["PASSWORD"] = right
    pipeline.touch(f"project/{_RAISES}")
    pipeline.run("recover", exits=4)
    pipeline.remove(f"project/{_RAISES}")
    pipeline.run("recover")
    pipeline.look()


def _recovers_steps(pipeline: _Pipeline) -> None:
    _plan(pipeline.fleet, servers='atomicity = "compensated"')
    pipeline.run("deploy", exits=-9, failpoint="decide.before")
    pipeline.touch(f"project/{_RAISES_BACK}")
    pipeline.run("recover", exits=4)
    pipeline.remove(f"project/{_RAISES_BACK}")
    pipeline.run("recover")
    pipeline.look(history=1)


def _is_refused(pipeline: _Pipeline) -> None:
    _mistype(pipeline)
    for command in ("deploy", "rehearse", "rollback"):
        pipeline.run(command, exits=3)
    pipeline.look(exits=3, history=3)


def _cannot_be_set_up(pipeline: _Pipeline) -> None:
    with (pipeline.fleet.directory / "project/small_settings.py").open("a") as settings:
        settings.write(f"raise ValueError(' '.join(os.environ[name] for name in {sorted(_ENVIRONMENT)!r}))\n")
    for command in ("deploy", "rehearse", "rollback", "recover", "plan", "check", "status"):
        pipeline.run(command, exits=3)
    pipeline.run("runs")


def _has_no_journal(pipeline: _Pipeline) -> None:
    pipeline.run("deploy")
    _plan(pipeline.fleet, journal="postgresql://postgres:${DEPLOY_PASSWORD}@127.0.0.1:1/journal")
    for command in ("deploy", "rehearse", "rollback", "recover", "status", "runs", "report"):
        pipeline.run(command, exits=3)


def _is_no_plan(pipeline: _Pipeline) -> None:
    pipeline.run("deploy")
    plan = pipeline.fleet.directory / "deploy.toml"
    plan.write_text(plan.read_text().replace("[deploy]", '[deploy]\njournal = "postgres://shop:Zq8-of-the-plan@db"'))
    for command in _COMMANDS:
        pipeline.run(command, exits=2)


_COMMANDS = ("deploy", "rehearse", "rollback", "recover", "plan", "check", "status", "runs", "report")
# What there is time for at each commit; each of the others is `long`.
_CASES: Sequence[Callable[[_Pipeline], None]] = (
    _deploys,
    _fails_in_a_migration,
    _fails_at_a_gate,
    _rehearses,
    _rolls_back,
    _recovers,
    _recovers_steps,
    _is_refused,
    _cannot_be_set_up,
    _has_no_journal,
    _is_no_plan,
)


@pytest.fixture(scope="module")
def guarded() -> Iterator[PostgresServer]:
    """A server that asks for passwords, and keeps transactions prepared."""
    with PostgresServer(auth="scram", settings=THROW_AWAY) as server:
        yield server


@pytest.fixture
def fleet(tmp_path: Path, pg_server: PostgresServer, guarded: PostgresServer) -> Iterator[Fleet]:
    """Databases with a migration to come that says all it knows, as the gate does."""
    with small_fleet(tmp_path, pg_server, guarded, {"demo.0002_note": _SPEAKS}) as fleet:
        settings = tmp_path / "project/small_settings.py"
        settings.write_text(settings.read_text().replace("for tests alone", _KEY) + _SETTINGS)
        gate = tmp_path / "gate"
        gate.write_text(_GATE)
        gate.chmod(0o755)
        yield fleet


def _plan(fleet: Fleet, journal: str = "", servers: str = "") -> None:
    deploy = _DEPLOY + (f'\njournal = "{journal}"' if journal else "")
    fleet.plan(deploy=deploy, servers=servers, shards='gate = ["./gate"]')
    path = fleet.directory / "deploy.toml"
    named = ", ".join(f'{name} = "${{{name}}}"' for name in ("SMALL_VALUE", "SMALL_URL"))
    path.write_text(path.read_text().replace("env = {", f"env = {{ {named},"))


def _kept_in(database: PostgresDatabase) -> bytes:
    """Return what the product's own tables in a database hold."""
    query = "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' AND relname LIKE 'smooth%'"
    with database.connect() as session:
        names = [name for (name,) in session.execute(query).fetchall()]
        rows = [session.execute(f"SELECT t::text FROM {name} t".encode()).fetchall() for name in names]
    return repr(rows).encode()


def _assert_kept_secret(pipeline: _Pipeline, *, speaks: bool) -> None:
    fleet = pipeline.fleet
    told = {path: path.read_bytes() for path in fleet.directory.rglob("*") if path.is_file()}
    # What the secrets themselves stand in, which Python compiles.
    told = {path: content for path, content in told.items() if path.suffix != ".pyc"}
    for name in ("project/small_settings.py", "deploy.toml"):
        del told[fleet.directory / name]
    told |= {Path(f"output {number}"): text for number, text in enumerate(pipeline.written)}
    told |= {Path(database.name): _kept_in(database) for database in (fleet.first, fleet.last)}
    secrets = (_MARK, str(fleet.last.server.password).encode())
    found = [
        (str(path), match.group())
        for path, content in told.items()
        for secret in secrets
        for match in re.finditer(b".{0,60}" + re.escape(secret) + b".{0,20}", content)
    ]
    assert found == []
    if speaks:
        assert any(b"***" in content for content in told.values())
    logs = [*fleet.directory.glob("*.log")]
    kept = [*(fleet.directory / ".smooth").rglob("*")]
    assert logs
    assert kept
    assert {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in (*logs, *kept)} == {
        path.name: oct(0o600) for path in (*logs, *kept)
    }
    assert stat.S_IMODE((fleet.directory / ".smooth").stat().st_mode) == 0o700


@pytest.mark.long
@pytest.mark.parametrize(
    ("work", "as_json"),
    [
        pytest.param(
            work,
            as_json,
            id=f"{work.__name__.strip('_').replace('_', ' ')} {'for machines' if as_json else 'for people'}",
        )
        for work in _CASES
        for as_json in (True, False)
    ],
)
def test_nothing_that_is_written_holds_a_secret(
    fleet: Fleet, work: Callable[[_Pipeline], None], *, as_json: bool
) -> None:
    _plan(fleet)
    pipeline = _Pipeline(fleet, as_json=as_json)
    before = os.umask(0)
    try:
        work(pipeline)
    finally:
        os.umask(before)
    _assert_kept_secret(pipeline, speaks=work is not _is_refused)

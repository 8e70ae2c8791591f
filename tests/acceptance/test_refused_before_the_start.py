import sysconfig
import venv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest

from tests.support.deploys import LAST, Fleet, small_fleet
from tests.support.postgres_server import THROW_AWAY, PostgresServer
from tests.support.runs import Outcome
from tests.support.sampling import one_in
from tests.support.small_migrations import NOTE

# Every secret of these tests but the server's own holds this, whatever quotation makes of the rest.
_MARK = b"Zq8"
_READER = "Zq8-of-the-reader"
_MISTYPED = "mistyped-Zq8'\"%@-password"
_SHARD = "json.loads(os.environ['SMALL_DATABASES'])['shard_1']"
_ALL = frozenset({"primary", "kiosk", LAST})


@pytest.fixture(scope="module")
def guarded() -> Iterator[PostgresServer]:
    """A server that asks for passwords."""
    with PostgresServer(auth="scram", settings=THROW_AWAY) as server:
        yield server


@pytest.fixture
def fleet(
    tmp_path: Path, pg_server: PostgresServer, guarded: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Fleet]:
    """Three databases with a migration to come; the last one is on the guarded server."""
    monkeypatch.setenv("SMALL_PASSWORD", str(guarded.password))
    with small_fleet(tmp_path, pg_server, guarded, {"demo.0002_note": NOTE}) as fleet:
        yield fleet


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that refuses a deploy.

    Args:
        id: what it is.
        make: makes it.
        words: that must stand in what the report says.
        places: of the findings.
    """

    id: str
    make: Callable[[Fleet], object]
    words: str
    places: frozenset[str] = frozenset({LAST})


def _settings(**values: object) -> Callable[[Fleet], None]:
    def make(fleet: Fleet) -> None:
        fleet.databases["shard_1"].update(values)

    return make


def _make_missing_directory(fleet: Fleet) -> None:
    fleet.databases["kiosk"]["NAME"] = str(fleet.directory / "nowhere" / "kiosk.sqlite3")


def _make_read_only(fleet: Fleet) -> None:
    with fleet.last.connect() as session:
        session.execute(f"ALTER DATABASE {fleet.last.name} SET default_transaction_read_only = on".encode())


def _make_reader(fleet: Fleet) -> None:
    role = f"reader_{uuid4().hex[:8]}"
    with fleet.last.connect() as session:
        session.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{_READER}' IN ROLE pg_read_all_data".encode())
    fleet.databases["shard_1"].update(USER=role, PASSWORD=_READER)


def _make_migration_raise(fleet: Fleet, **options: object) -> None:
    fleet.databases["shard_1"]["OPTIONS"] = options
    words = "'the password is ' + settings.DATABASES['shard_1']['PASSWORD']"
    path = fleet.directory / "project/demo/migrations/0002_note.py"
    path.write_text(f"from django.conf import settings\n\nraise ValueError({words})\n")


DATABASE_FAULTS = [
    Fault("closed port", _settings(PORT="1"), "refused"),
    Fault("wrong password", _settings(PASSWORD=_MISTYPED), "password authentication failed"),
    Fault(
        "wrong password beside an option that asyncpg does not have",
        _settings(PASSWORD=_MISTYPED, OPTIONS={"passfile": "/nowhere", "keepalives": 1}),
        "password authentication failed",
    ),
    Fault("missing database", _settings(NAME="nowhere"), '"nowhere" does not exist'),
    Fault("missing privilege", _make_reader, "may not create tables in the schema"),
    Fault("read-only server", _make_read_only, "accepts no writes"),
    Fault("missing directory", _make_missing_directory, "unable to open database file", places=frozenset({"kiosk"})),
    Fault(
        "gate that is not there",
        lambda fleet: fleet.plan(shards='gate = ["./bin/looks"]'),
        '"./bin/looks" is no command that can be run',
        places=frozenset({"phases[1].gate[0]"}),
    ),
    Fault("migration that raises with a password", _make_migration_raise, "the password is ***", places=_ALL),
    Fault(
        "migration that raises with a password beside an option that asyncpg does not have",
        partial(_make_migration_raise, keepalives=1),
        "the password is ***",
        places=_ALL,
    ),
]


def _in_plan(fleet: Fleet, old: str, new: str) -> None:
    plan = fleet.directory / "deploy.toml"
    before, after = plan.read_text().split(old)
    plan.write_text(before + new + after)


def _settings_file(text: str) -> Callable[[Fleet], None]:
    def make(fleet: Fleet) -> None:
        path = fleet.directory / "project/small_settings.py"
        path.write_text(f"import json\nimport os\nfrom urllib.parse import quote\n\n{text}\n")

    return make


def _mistyped(text: str) -> Callable[[Fleet], None]:
    def make(fleet: Fleet) -> None:
        _settings(PASSWORD=_MISTYPED)(fleet)
        _settings_file(text)(fleet)

    return make


def _make_settings_raise_their_password(fleet: Fleet) -> None:
    _in_plan(fleet, "env = {", 'env = { SMALL_PASSWORD = "${SMALL_PASSWORD}",')
    _settings_file("raise ValueError('cannot log in with ' + os.environ['SMALL_PASSWORD'])")(fleet)


def _make_interpreter_without_django(fleet: Fleet) -> None:
    home = fleet.directory / "interpreter"
    venv.create(home, symlinks=True)
    site = sysconfig.get_path("purelib", "venv", {"base": str(home), "platbase": str(home)})
    Path(site, "ours.pth").write_text(f"{Path(__file__).parents[2]}\n")
    _in_plan(fleet, "[projects.one]", f'[projects.one]\npython = "{home / "bin/python"}"')


PROJECT_FAULTS = [
    Fault("interpreter without Django", _make_interpreter_without_django, "has no Django"),
    Fault(
        "settings that are missing",
        lambda fleet: (fleet.directory / "project/small_settings.py").unlink(),
        "No module named 'small_settings'",
    ),
    Fault("settings that raise", _settings_file("raise KeyError('NO_SUCH_SETTING')"), "NO_SUCH_SETTING"),
    Fault(
        "settings that raise with a password from a variable of its own",
        _make_settings_raise_their_password,
        "cannot log in with ***",
    ),
    Fault(
        "settings that raise with a password from a variable that holds more",
        _settings_file(f"raise ValueError('cannot log in with ' + {_SHARD}['PASSWORD'])"),
        "cannot log in with ***",
    ),
    Fault(
        "settings that raise with a URL",
        _mistyped(f"raise ValueError('no postgresql://shop:{{}}@db/shop'.format(quote({_SHARD}['PASSWORD'])))"),
        "no postgresql://shop:***@db/shop",
    ),
    Fault("settings that raise with a database", _mistyped(f"raise ValueError({_SHARD})"), "'PASSWORD': ***"),
]


def _refused(fleet: Fleet) -> Outcome:
    """Deploy, and assert that this is refused, that nothing was changed, and that no secret stands anywhere."""
    before = fleet.dumps()
    outcome = fleet.deploy("--log-file", "deploy.log", "--log-level", "debug")
    assert (outcome.exit_code, outcome.report["outcome"]) == (3, "refused"), outcome.stdout + outcome.stderr
    assert fleet.dumps() == before
    files = {path: path.read_bytes() for path in fleet.directory.rglob("*") if path.is_file()}
    assert {"deploy.log", "journal.db"} <= {path.name for path in files}
    files |= {Path("stdout"): outcome.stdout.encode(), Path("stderr"): outcome.stderr.encode()}
    secrets = (_MARK, str(fleet.last.server.password).encode())
    assert [(path, secret) for path, content in files.items() for secret in secrets if secret in content] == []
    return outcome


@pytest.mark.parametrize("fault", one_in(6, DATABASE_FAULTS))
def test_a_database_that_cannot_be_migrated_is_refused_by_name(fault: Fault, fleet: Fleet) -> None:
    fault.make(fleet)
    outcome = _refused(fleet)
    assert {finding["place"] for finding in outcome.report["errors"]} == fault.places
    assert any(fault.words in finding["message"] for finding in outcome.report["errors"]), outcome.report["errors"]
    assert [line["event"] for line in outcome.log].count("preflight.failed") == 1


@pytest.mark.parametrize("fault", one_in(5, PROJECT_FAULTS))
def test_a_project_that_cannot_be_set_up_is_refused_by_name(fault: Fault, fleet: Fleet) -> None:
    fault.make(fleet)
    outcome = _refused(fleet)
    assert outcome.report["error"]["message"].startswith("project one: ")
    assert fault.words in outcome.report["error"]["message"]

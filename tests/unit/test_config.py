from pathlib import Path

import pytest

from smooth_orchestrator.config import Atomicity, CommitUnit, OnFailure, PlanFile, Tier, Transport, load
from smooth_orchestrator.errors import PlanInvalid
from smooth_orchestrator.plan import resolve
from tests.unit.bad_plans import CASES, FACTS, BadPlan, make
from tests.unit.bad_plans.base import HEAD, PRIMARY, PROJECT, deploy, phases, project

# The example of the reference, with a second interpreter that is there.
EXAMPLE = """\
version = 1

[deploy]
name = "shop"
journal = "sqlite:///.smooth/journal.db"
atomicity = "auto"
minimum_atomicity = "compensated"
commit = "deploy"
on_failure = "rollback"
expand_contract = true
lock_timeout = "2s"
lock_retries = 10
statement_timeout = "15min"
max_lock_hold = "30s"
settle_timeout = "60s"

[finalise]
bake_time = "24h"
gate = ["./bin/ready-to-finalise"]
forbid_sessions = ["shop-v1*"]

[projects.shop]
path = "shop"
settings = "shop.settings"
python = ".venv/bin/python"
env = { DB_PASSWORD = "${SHOP_DB_PASSWORD}" }

[databases.primary]
project = "shop"
alias = "default"

[databases.shards]
project = "shop"
aliases = "shard_*"
atomicity = "held_open"
bind_default = true
other_aliases = "refuse"

[[phases]]
name = "canary"
databases = ["primary"]
parallel = 1

[[phases]]
name = "fleet"
databases = ["shards:*"]
parallel = 8
gate = ["./bin/smoke-test"]

[fleet]
transport = "local"
queue_url = "postgresql://smooth:${QUEUE_PASSWORD}@queue-host/smooth"
queue = "shop-migrations"
job_timeout = "30min"
"""
ENVIRON = {"SHOP_DB_PASSWORD": "hunter2", "QUEUE_PASSWORD": "correct-horse"}


def read(directory: Path, text: str, environ: dict[str, str] | None = None) -> PlanFile:
    return load(make(BadPlan("", text, ()), directory), environ or {})


def mistakes(directory: Path, text: str, environ: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(PlanInvalid) as caught:
        read(directory, text, environ)
    return [str(mistake) for mistake in caught.value.mistakes]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_bad_plan_is_refused_with_every_mistake_and_its_place(case: BadPlan, tmp_path: Path) -> None:
    path = make(case, tmp_path)
    with pytest.raises(PlanInvalid) as caught:
        resolve(load(path, {}), FACTS)
    lines = [f"{mistake.place}: {mistake.message}" for mistake in caught.value.mistakes]
    assert lines == [line.replace("{plan}", str(path)) for line in case.expected]


@pytest.mark.parametrize("case", [case for case in CASES if not case.needs_django], ids=lambda case: case.id)
def test_what_the_file_alone_shows_is_refused_before_any_project_is_asked(case: BadPlan, tmp_path: Path) -> None:
    with pytest.raises(PlanInvalid):
        load(make(case, tmp_path), {})


def test_there_are_forty_bad_plans_and_each_has_a_name_of_its_own() -> None:
    assert len({case.id for case in CASES}) == len(CASES) >= 40


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (deploy('lock_timout = "2s"'), 'deploy.lock_timout: is not a key of this table (did you mean "lock_timeout"?)'),
        (
            'lock_timeout = "2s"\n' + deploy(""),
            "lock_timeout: is not a key of a plan (it belongs in [deploy] or [databases.NAME])",
        ),
        (
            deploy('on_failure = "rollbak"'),
            'deploy.on_failure: "rollbak" is not one of "rollback", "halt" (did you mean "rollback"?)',
        ),
        (
            HEAD + PROJECT + PRIMARY.replace('"shop"', '"shpo"'),
            'databases.primary.project: there is no project "shpo" (did you mean "shop"?)',
        ),
        (
            phases('name = "all"\ndatabases = ["primary"]\ngate = "./bin/smoke-test"'),
            'phases[0].gate: must be an array, not a string (write ["./bin/smoke-test"])',
        ),
        (
            deploy("[phases]"),
            "phases: must be an array of tables, not a table (write [[phases]])",
        ),
        (
            deploy('max_lock_hold = "0s"'),
            'deploy.max_lock_hold: "0s" is too short (at least "1ms")',
        ),
    ],
    ids=["key", "misplaced key", "value", "project", "argv", "phases", "duration"],
)
def test_a_mistake_comes_with_a_hint_that_can_be_followed(text: str, line: str, tmp_path: Path) -> None:
    assert mistakes(tmp_path, text) == [line]


def test_the_reference_example_is_read_whole(tmp_path: Path) -> None:
    interpreter = tmp_path / ".venv" / "bin" / "python"
    interpreter.parent.mkdir(parents=True)
    interpreter.touch(mode=0o755)
    file = read(tmp_path, EXAMPLE, ENVIRON)
    assert file.directory == tmp_path.resolve()
    assert file.finalise.gate == ("./bin/ready-to-finalise",)
    assert file.projects["shop"].env["DB_PASSWORD"].get_secret_value() == "hunter2"
    assert file.databases["shards"].atomicity is Atomicity.HELD_OPEN
    assert [phase.parallel for phase in file.phases] == [1, 8]
    assert file.fleet.queue_url is not None
    assert file.fleet.queue_url.get_secret_value() == "postgresql://smooth:correct-horse@queue-host/smooth"


def test_what_is_left_out_has_the_documented_default(tmp_path: Path) -> None:
    file = read(tmp_path, HEAD + PROJECT + PRIMARY)
    deploy_table, finalise = file.deploy, file.finalise
    assert deploy_table.journal.get_secret_value() == "sqlite:///.smooth/journal.db"
    assert (deploy_table.atomicity, deploy_table.minimum_atomicity) == (Atomicity.AUTO, Tier.COMPENSATED)
    assert (deploy_table.commit, deploy_table.on_failure) == (CommitUnit.DEPLOY, OnFailure.ROLLBACK)
    assert deploy_table.expand_contract is True
    assert (deploy_table.lock_timeout, deploy_table.lock_retries) == (2_000, 10)
    assert (deploy_table.statement_timeout, deploy_table.max_lock_hold) == (900_000, 30_000)
    assert deploy_table.settle_timeout == 60_000
    assert (finalise.bake_time, finalise.gate, finalise.forbid_sessions) == (86_400_000, None, ())
    assert (file.fleet.transport, file.fleet.job_timeout) == (Transport.LOCAL, 1_800_000)
    assert file.phases == ()


def test_secrets_show_in_no_representation_of_a_plan(tmp_path: Path) -> None:
    text = project('env = { A = "${SHOP_DB_PASSWORD}" }').replace(
        'name = "shop"', 'name = "shop"\njournal = "postgresql://u:${QUEUE_PASSWORD}@h/j"', 1
    )
    file = read(tmp_path, text, ENVIRON)
    plan = resolve(file, FACTS)
    for shown in (repr(file), str(file), file.model_dump_json(), repr(plan), str(plan)):
        assert "hunter2" not in shown
        assert "correct-horse" not in shown


def test_a_refusal_shows_no_secret_even_when_the_secret_is_what_is_wrong(tmp_path: Path) -> None:
    text = deploy('journal = "${JOURNAL}"\nlock_retries = "many"')
    with pytest.raises(PlanInvalid) as caught:
        read(tmp_path, text, {"JOURNAL": "mysql://u:hunter2@h/j"})
    error = caught.value
    assert [mistake.place for mistake in error.mistakes] == ["deploy.journal", "deploy.lock_retries"]
    assert "hunter2" not in str(error)
    assert error.__context__ is None


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("${HOST}", "db-1"),
        ("${HOST}:${PORT}", "db-1:5432"),
        ("$${HOST}", "${HOST}"),
        ("$HOST costs $5", "$HOST costs $5"),
        ("${EMPTY}", ""),
    ],
)
def test_a_reference_is_replaced_and_two_dollars_stand_for_one(written: str, value: str, tmp_path: Path) -> None:
    environ = {"HOST": "db-1", "PORT": "5432", "EMPTY": ""}
    file = read(tmp_path, project(f'env = {{ A = "{written}" }}'), environ)
    assert file.projects["shop"].env["A"].get_secret_value() == value


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///journal.db",
        "sqlite:////var/lib/smooth/journal.db",
        "postgresql://smooth@db/journal",
        "postgresql://smooth:${PASSWORD}@db:5433/journal?sslmode=require",
        "postgresql:///journal?host=/run/postgresql&password=${PASSWORD}",
        "${WHOLE}",
    ],
)
def test_a_journal_may_be_a_file_or_a_postgresql_database(url: str, tmp_path: Path) -> None:
    environ = {"PASSWORD": "hunter2", "WHOLE": "postgresql://u:hunter2@h/j"}
    file = read(tmp_path, deploy(f'journal = "{url}"'), environ)
    assert "${" not in file.deploy.journal.get_secret_value()


def test_a_password_in_the_query_of_a_journal_is_refused_too(tmp_path: Path) -> None:
    (line,) = mistakes(tmp_path, deploy('journal = "postgresql:///j?host=h&password=hunter2"'))
    assert line == (
        "deploy.journal: holds a password, and a plan is no place for secrets "
        "(write ${NAME} for it, or leave it out and set PGPASSFILE or PGPASSWORD)"
    )


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("sqlite:///j.db", ['with transport = "procrastinate" the journal must be on a PostgreSQL server']),
        ("postgresql://smooth@h/smooth", []),
        (None, ["not set in the environment: JOURNAL"]),
    ],
    ids=["file", "server", "not set"],
)
def test_a_journal_from_the_environment_is_on_a_server_where_there_is_a_fleet(
    url: str | None, told: list[str], tmp_path: Path
) -> None:
    fleet = '\n[fleet]\ntransport = "procrastinate"\nqueue_url = "postgresql://smooth@h/smooth"\n'
    path = make(BadPlan("", deploy('journal = "${JOURNAL}"') + fleet, ()), tmp_path)
    found: list[str] = []
    try:
        load(path, {} if url is None else {"JOURNAL": url})
    except PlanInvalid as error:
        found = [mistake.message for mistake in error.mistakes if mistake.place == "deploy.journal"]
    assert found == told


def test_every_unset_variable_of_a_value_is_named(tmp_path: Path) -> None:
    lines = mistakes(tmp_path, project('env = { URL = "${NO_USER}@${NO_HOST}/${NO_USER}" }'))
    assert lines == ["projects.shop.env.URL: not set in the environment: NO_USER, NO_HOST"]


def test_a_virtual_environment_s_interpreter_keeps_its_symbolic_link(tmp_path: Path) -> None:
    real = tmp_path / "python-real"
    real.touch(mode=0o755)
    (tmp_path / "python").symlink_to(real)
    plan = resolve(read(tmp_path, project('python = "python"')), FACTS)
    assert plan.projects["shop"].python == tmp_path.resolve() / "python"


def test_a_plan_of_a_thousand_unknown_keys_names_each(tmp_path: Path) -> None:
    keys = "".join(f"key_{number} = {number}\n" for number in range(1000))
    assert len(mistakes(tmp_path, deploy(keys))) == 1000

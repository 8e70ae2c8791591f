from collections.abc import Mapping
from pathlib import Path

import pytest

from smooth_migrations.protocol import DatabaseFacts, OtherAliases
from smooth_orchestrator.config import Atomicity, PlanFile, load
from smooth_orchestrator.errors import PlanInvalid
from smooth_orchestrator.plan import Plan, ProjectFacts, Target, projects_of, resolve
from tests.unit.bad_plans import FACTS, BadPlan, make
from tests.unit.bad_plans.base import HEAD, PRIMARY, PROJECT, SHARDS, database, deploy, phases, project


def read(directory: Path, text: str, environ: Mapping[str, str] | None = None) -> PlanFile:
    directory.mkdir(exist_ok=True)
    return load(make(BadPlan("", text, ()), directory), environ or {})


def plan_of(directory: Path, text: str, facts: Mapping[str, ProjectFacts] = FACTS) -> Plan:
    return resolve(read(directory, text), facts)


def only_target(directory: Path, text: str, facts: Mapping[str, ProjectFacts] = FACTS) -> Target:
    (target,) = plan_of(directory, text, facts).targets
    return target


def facts(*databases: DatabaseFacts, has_routers: bool = False) -> dict[str, ProjectFacts]:
    return {"shop": ProjectFacts(databases, has_routers)}


def test_without_phases_every_database_is_in_one_named_all(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, HEAD + PROJECT + PRIMARY + SHARDS)
    (phase,) = plan.phases
    assert (phase.name, phase.index, phase.gate) == ("all", 0, ())
    assert [target.name for target in phase.targets] == ["primary", "shards:shard_1", "shards:shard_2"]


def test_phases_keep_their_order_and_take_what_they_list(tmp_path: Path) -> None:
    fleet = 'name = "fleet"\ndatabases = ["shards:*"]\nparallel = 8\ngate = ["./bin/smoke-test", "--quick"]'
    plan = plan_of(tmp_path, phases(fleet, 'name = "last"\ndatabases = ["primary"]', databases=PRIMARY + SHARDS))
    assert [(phase.index, phase.name, phase.parallel, phase.gate) for phase in plan.phases] == [
        (0, "fleet", 8, ("./bin/smoke-test", "--quick")),
        (1, "last", 4, ()),
    ]
    assert [target.name for target in plan.targets] == ["shards:shard_1", "shards:shard_2", "primary"]


def test_a_database_that_two_globs_of_one_phase_match_is_in_it_once(tmp_path: Path) -> None:
    both = 'name = "all"\ndatabases = ["shards:*", "primary", "shards:shard_1", "*"]'
    plan = plan_of(tmp_path, phases(both, databases=PRIMARY + SHARDS))
    assert [target.name for target in plan.targets] == ["primary", "shards:shard_1", "shards:shard_2"]


def test_a_target_has_the_deploy_s_rules_where_it_has_none_of_its_own(tmp_path: Path) -> None:
    rules = 'atomicity = "held_open"\nexpand_contract = false\nlock_timeout = "3s"'
    target = only_target(tmp_path, deploy(rules))
    assert (target.project, target.alias, target.vendor) == ("shop", "default", "sqlite")
    assert (target.atomicity, target.expand_contract, target.lock_timeout_ms) == (Atomicity.HELD_OPEN, False, 3_000)
    assert target.other_aliases is OtherAliases.REFUSE


def test_a_target_s_own_rules_come_first(tmp_path: Path) -> None:
    own = 'atomicity = "compensated"\nexpand_contract = false\nlock_timeout = "5s"\nother_aliases = "allow"'
    target = only_target(tmp_path, database(own))
    assert (target.atomicity, target.expand_contract, target.lock_timeout_ms) == (Atomicity.COMPENSATED, False, 5_000)
    assert target.other_aliases is OtherAliases.ALLOW


@pytest.mark.parametrize("has_routers", [True, False])
def test_default_is_bound_where_the_project_has_no_routers(tmp_path: Path, *, has_routers: bool) -> None:
    known = facts(DatabaseFacts("default", "sqlite", "a"), has_routers=has_routers)
    assert only_target(tmp_path, HEAD + PROJECT + PRIMARY, known).bind_default is not has_routers


@pytest.mark.parametrize("bind_default", [True, False])
def test_what_the_plan_says_of_binding_default_comes_first(tmp_path: Path, *, bind_default: bool) -> None:
    known = facts(DatabaseFacts("default", "sqlite", "a"), has_routers=bind_default)
    line = f"bind_default = {str(bind_default).lower()}"
    assert only_target(tmp_path, database(line), known).bind_default is bind_default


def test_a_glob_over_aliases_leaves_mirrors_out(tmp_path: Path) -> None:
    known = facts(
        DatabaseFacts("shard_1", "postgresql", "h:1/a"),
        DatabaseFacts("shard_1_replica", "postgresql", "h:1/a", mirror=True),
    )
    assert only_target(tmp_path, HEAD + PROJECT + SHARDS, known).alias == "shard_1"


def test_one_physical_database_in_two_projects_is_a_mistake(tmp_path: Path) -> None:
    text = HEAD + PROJECT + PROJECT.replace("projects.shop", "projects.billing") + PRIMARY
    text += PRIMARY.replace("primary", "bills").replace('"shop"', '"billing"')
    both = {
        name: ProjectFacts((DatabaseFacts("default", "postgresql", "h:1/a"),), has_routers=False)
        for name in ("shop", "billing")
    }
    with pytest.raises(PlanInvalid) as caught:
        plan_of(tmp_path, text, both)
    assert str(caught.value) == (
        'databases.bills: "bills" is the same physical database as "primary" (one database stands in a plan once)'
    )


def test_an_unknown_alias_is_told_with_the_nearest_or_with_all(tmp_path: Path) -> None:
    near, far = "defalt", "warehouse"
    for alias, hint in ((near, 'did you mean "default"?'), (far, 'it has "default"')):
        with pytest.raises(PlanInvalid) as caught:
            plan_of(
                tmp_path / alias,
                HEAD + PROJECT + PRIMARY.replace("default", alias),
                facts(DatabaseFacts("default", "sqlite", "a")),
            )
        assert [mistake.hint for mistake in caught.value.mistakes] == [hint]


def test_a_server_of_no_database_is_told_with_those_that_there_are(tmp_path: Path) -> None:
    known = facts(DatabaseFacts("default", "postgresql", "postgresql:db1:5432/shop"))
    text = HEAD + PROJECT + PRIMARY + '[servers."db1:5432"]\nmax_connections = 20\n'
    assert plan_of(tmp_path / "known", text, known).servers == {"db1:5432": 20}
    for name, hint in (("db1:5433", 'did you mean "db1:5432"?'), ("elsewhere", 'they are on "db1:5432"')):
        with pytest.raises(PlanInvalid) as caught:
            plan_of(tmp_path / name.replace(":", "_"), text.replace("db1:5432", name), known)
        (mistake,) = caught.value.mistakes
        assert (mistake.place, mistake.hint) == (f'servers."{name}"' if ":" in name else f"servers.{name}", hint)


def test_projects_are_absolute_and_carry_their_environment(tmp_path: Path) -> None:
    file = read(tmp_path, project('env = { DB_PASSWORD = "${SECRET}" }'), {"SECRET": "hunter2"})
    shop = projects_of(file)["shop"]
    assert (shop.path, shop.settings, shop.python) == (tmp_path.resolve() / "shop", "shop.settings", None)
    assert shop.env == {"DB_PASSWORD": "hunter2"}


def test_connection_parameters_reach_the_target_and_no_representation(tmp_path: Path) -> None:
    known = facts(DatabaseFacts("default", "postgresql", "h:1/a", asyncpg={"host": "h", "password": "hunter2"}))
    target = only_target(tmp_path, HEAD + PROJECT + PRIMARY, known)
    assert target.asyncpg == {"host": "h", "password": "hunter2"}
    assert "hunter2" not in repr(target)


def test_a_digest_is_the_same_in_another_directory_and_with_other_secrets(tmp_path: Path) -> None:
    text = project('env = { DB_PASSWORD = "${SECRET}" }')
    digests = set()
    for name in ("one", "two"):
        file = read(tmp_path / name, text, {"SECRET": name})
        known = facts(
            DatabaseFacts("default", "sqlite", str(file.directory / "db.sqlite3"), asyncpg={"password": name})
        )
        digests.add(resolve(file, known).digest)
    assert len(digests) == 1


@pytest.mark.parametrize(
    "text",
    [
        deploy('on_failure = "halt"'),
        deploy('lock_timeout = "3s"'),
        database("bind_default = false"),
        database('other_aliases = "allow"'),
        phases('name = "canary"\ndatabases = ["primary"]'),
        HEAD + PROJECT + PRIMARY + SHARDS,
        HEAD + PROJECT + PRIMARY.replace("default", "reports"),
    ],
    ids=["on_failure", "lock_timeout", "bind_default", "other_aliases", "phases", "databases", "alias"],
)
def test_a_digest_changes_with_the_meaning(text: str, tmp_path: Path) -> None:
    assert plan_of(tmp_path / "one", HEAD + PROJECT + PRIMARY).digest != plan_of(tmp_path / "two", text).digest


def test_comments_and_defaults_written_out_leave_the_digest_alone(tmp_path: Path) -> None:
    plain = plan_of(tmp_path / "one", deploy(""))
    assert plan_of(tmp_path / "two", deploy('lock_timeout = "2000ms"  # two seconds')).digest == plain.digest

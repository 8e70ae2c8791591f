import json
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from smooth_migrations.protocol import DatabaseFacts
from smooth_orchestrator import plan as planning
from smooth_orchestrator.config import load
from tests.support.postgres_database import PostgresDatabase, temporary_database
from tests.support.postgres_server import THROW_AWAY, PostgresServer
from tests.support.runs import SCRIPT, Outcome
from tests.support.shop import check_out
from tests.unit.bad_plans import BadPlan, make

CONFIGS = Path(__file__).parents[2] / "configs"
_RELEASE_1 = {"catalog.0001_initial", "orders.0001_initial"}
_RELEASE_2 = {"catalog.0003_product_stock", "orders.0002_order_total", "orders.0003_fill_totals"}
# The shop's own settings take whole entries; those of a shop with a secret in a variable of its own look like this.
_APART = """
for _database in DATABASES.values():
    _database["PASSWORD"] = os.environ["SHOP_DB_PASSWORD"]
"""
_GATE = """\
#!/bin/sh
echo "$SMOOTH_DEPLOY $SMOOTH_PHASE" >> gate.txt
"""


@pytest.fixture(scope="module")
def guarded() -> Iterator[PostgresServer]:
    """A server that asks for passwords."""
    with PostgresServer(auth="scram", settings=THROW_AWAY) as server:
        yield server


class Shop:
    """A plan of `configs/`, the shop beside it, and databases of its own.

    Args:
        directory: for the plan and the project.
        plan: its file name.
        databases: by alias.
        secret: whether the password comes in a variable of its own, as `shards.toml` has it.
    """

    def __init__(
        self, directory: Path, plan: str, databases: Mapping[str, PostgresDatabase], *, secret: bool = False
    ) -> None:
        self._directory = directory
        self._plan = plan
        self._databases = databases
        self._secret = secret
        shutil.copy(CONFIGS / plan, directory / plan)

    def release(self, number: int) -> None:
        """Check a release out."""
        check_out(number, self._directory / "shop")
        if self._secret:
            with (self._directory / "shop/shop/settings.py").open("a") as settings:
                settings.write(_APART)

    def run(self, command: str) -> Outcome:
        """Run a command over the plan as its comments say: with its environment, from anywhere."""
        entries: dict[str, dict[str, Any]] = {alias: one.django for alias, one in self._databases.items()}
        environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
        if self._secret:
            environment["SHOP_DB_PASSWORD"] = entries["default"]["PASSWORD"]
            entries = {alias: entry | {"PASSWORD": ""} for alias, entry in entries.items()}
        done = subprocess.run(
            [SCRIPT, command, self._directory / self._plan, "--json"],
            env=environment | {"SHOP_DATABASES": json.dumps(entries)},
            capture_output=True,
            text=True,
            check=False,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    def migrations(self) -> list[set[str]]:
        """Return what each database has recorded, through connections of their own."""
        return [_recorded(database) for database in self._databases.values()]


def _recorded(database: PostgresDatabase) -> set[str]:
    with database.connect() as session:
        if session.execute("SELECT to_regclass('django_migrations')").fetchone() == (None,):
            return set()
        return {name for (name,) in session.execute("SELECT app || '.' || name FROM django_migrations")}


def _both_releases(shop: Shop) -> Outcome:
    """Check and deploy one release after another; return how the second deploy went."""
    had: list[set[str]] = shop.migrations()
    for number, brings in ((1, _RELEASE_1), (2, _RELEASE_2)):
        shop.release(number)
        checked = shop.run("check")
        assert (checked.exit_code, checked.report["errors"]) == (0, []), checked.stdout
        assert shop.migrations() == had
        deployed = shop.run("deploy")
        assert (deployed.exit_code, deployed.report["outcome"]) == (0, "committed"), deployed.stdout + deployed.stderr
        had = shop.migrations()
        assert [brings - names for names in had] == [set()] * len(had)
    return deployed


def test_the_plan_of_one_database_is_run(tmp_path: Path, pg_database: PostgresDatabase) -> None:
    shop = Shop(tmp_path, "deploy.toml", {"default": pg_database})
    assert _both_releases(shop).outcomes == {"primary": "committed"}
    assert (tmp_path / ".smooth/journal.db").is_file()


@pytest.mark.long
def test_the_plan_of_a_primary_and_shards_is_run(tmp_path: Path, guarded: PostgresServer) -> None:
    aliases = ("default", "shard_1", "shard_2", "shard_3")
    gate = tmp_path / "bin/smoke-test"
    gate.parent.mkdir()
    gate.write_text(_GATE)
    gate.chmod(0o755)
    with ExitStack() as stack:
        databases = {alias: stack.enter_context(temporary_database(guarded)) for alias in aliases}
        shop = Shop(tmp_path, "shards.toml", databases, secret=True)
        deployed = _both_releases(shop)
        names = ["primary", "shards:shard_1", "shards:shard_2", "shards:shard_3"]
        assert deployed.outcomes == dict.fromkeys(names, "committed")
        assert {entry["tier"] for entry in deployed.report["databases"]} == {"two_phase"}
        assert (tmp_path / "gate.txt").read_text() == "shop-fleet fleet\n" * 2
        assert [line["phase"] for line in deployed.named("gate.passed")] == ["fleet"]


def test_what_is_commented_out_in_the_plan_of_one_database_is_the_default(tmp_path: Path) -> None:
    text = (CONFIGS / "deploy.toml").read_text()
    written_out = re.sub("^# (?=[a-z_]+ = )(?!python|env)", "", text, flags=re.MULTILINE)
    plans = []
    for name, content in (("short", text), ("long", written_out)):
        (tmp_path / name).mkdir()
        file = load(make(BadPlan("none", content, ()), tmp_path / name), {})
        facts = DatabaseFacts("default", "sqlite", "sqlite:/shop.sqlite3")
        plans.append(planning.resolve(file, {"shop": planning.ProjectFacts((facts,), has_routers=False)}))
    assert len(tomllib.loads(written_out)["deploy"]) > 10
    # The directories differ because both are written by this test.
    short, long = (replace(plan, directory=tmp_path, projects={}) for plan in plans)
    assert short == long


def test_every_plan_of_configs_is_run_here() -> None:
    assert {path.name for path in CONFIGS.glob("*.toml")} == {"deploy.toml", "shards.toml"}

"""What a first plan is made of: the project that is found in a directory, and its databases."""

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smooth_migrations.protocol import DatabaseFacts
from smooth_orchestrator.config import load
from smooth_orchestrator.errors import PlanInvalid
from smooth_orchestrator.initial.discovery import find_project
from smooth_orchestrator.initial.entries import choose
from smooth_orchestrator.initial.text import plan_text
from smooth_orchestrator.plan import Plan, ProjectFacts, resolve
from smooth_orchestrator.plan.values import Project

DEFAULT: Final = 'os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")'


def _facts(alias: str, where: str = "", *, vendor: str = "postgresql", mirror: bool = False) -> DatabaseFacts:
    return DatabaseFacts(alias, vendor, f"postgresql:db:5432/{where or alias}", mirror=mirror)


def _plan(directory: Path, *databases: DatabaseFacts, has_routers: bool = False) -> tuple[Plan, str]:
    """Write a plan for these, and read it as every command does."""
    (directory / "shop").mkdir(exist_ok=True)
    project = Project("shop", directory / "shop", "shop.settings")
    entries, left_out = choose(databases)
    text = plan_text(project, entries, left_out, has_routers=has_routers, directory=directory)
    file = directory / "deploy.toml"
    file.write_text(text, encoding="utf-8")
    return resolve(load(file, {}), {"shop": ProjectFacts(databases, has_routers)}), text


def _phases(plan: Plan) -> dict[str, list[str]]:
    return {phase.name: [target.name for target in phase.targets] for phase in plan.phases}


def test_shards_are_one_entry_and_the_first_single_database_is_the_canary(tmp_path: Path) -> None:
    shards = [_facts(f"shard_{number}") for number in range(1, 13)]
    plan, text = _plan(tmp_path, _facts("default"), _facts("reports"), *shards)
    assert _phases(plan) == {"canary": ["primary"], "fleet": ["reports", *(f"shards:{each.alias}" for each in shards)]}
    assert tomllib.loads(text)["databases"]["shards"] == {"project": "shop", "aliases": "shard_*"}


def test_a_single_database_is_one_phase(tmp_path: Path) -> None:
    plan, _ = _plan(tmp_path, _facts("default"))
    assert _phases(plan) == {"all": ["primary"]}


@pytest.mark.parametrize("numbers", [range(12), range(1, 201), ["001", "002", "010", "011"], ["eu", "us", "eu2"]])
def test_of_shards_alone_one_is_the_canary_and_all_others_come_after_it(
    tmp_path: Path, numbers: list[int | str]
) -> None:
    shards = [_facts(f"shard_{number}", "0" if index == 0 else "") for index, number in enumerate(numbers)]
    # Django asks for a default; where it is a shard under another name, that shard is not left out of the glob.
    plan, text = _plan(tmp_path, _facts("default", "0"), *shards)
    phases = _phases(plan)
    assert phases["canary"] == [f"shards:shard_{numbers[0]}"]
    assert sorted(phases["fleet"]) == sorted(f"shards:shard_{number}" for number in [*numbers][1:])
    assert f'"default": it is the same database as "shard_{numbers[0]}"' in text


def test_a_glob_names_no_database_that_is_not_a_shard(tmp_path: Path) -> None:
    known = [_facts(alias) for alias in ("default", "db1", "db2", "db_old")]
    _, text = _plan(tmp_path, *known)
    assert tomllib.loads(text)["databases"]["dbs"]["aliases"] == "db[0-9]*"

    plan, text = _plan(tmp_path, *known, _facts("db3", "db1"))
    assert [target.alias for target in plan.targets] == ["default", "db1", "db2", "db_old"]
    assert '"db3": it is the same database as "db1"' in text


def test_what_cannot_be_deployed_to_is_left_out_and_said(tmp_path: Path) -> None:
    plan, text = _plan(
        tmp_path,
        _facts("default"),
        _facts("replica", mirror=True),
        _facts("warehouse", vendor="oracle"),
        replace(_facts("tenants"), refusal="its backend keeps a schema for each tenant"),
        DatabaseFacts("memory", "sqlite", "sqlite::memory::memory"),
        DatabaseFacts("shared", "sqlite", "sqlite:/srv/file:x?mode=memory&cache=shared"),
        _facts("\ud800"),
        _facts("a\0b"),
    )
    assert [target.alias for target in plan.targets] == ["default"]
    for alias in ("replica", "warehouse", "tenants", "memory", "shared", r"\ud800", r"a\x00b"):
        assert f'#   "{alias}": ' in text
    assert 'its engine ("oracle")' in text


@pytest.mark.parametrize("has_routers", [True, False])
def test_the_plan_says_what_default_means_while_a_database_is_migrated(tmp_path: Path, has_routers: bool) -> None:  # noqa: FBT001 - a parameter of the test
    plan, text = _plan(tmp_path, _facts("default"), has_routers=has_routers)
    assert plan.targets[0].bind_default is not has_routers
    assert ("The project has DATABASE_ROUTERS" in text) is has_routers


@given(st.lists(st.text(max_size=80) | st.from_regex(r"\A(shard|db|a\[|é)[_-]?[0-9]{1,3}\Z"), min_size=1, unique=True))
def test_whatever_the_aliases_are_each_that_a_plan_can_name_is_in_it_once(
    tmp_path_factory: pytest.TempPathFactory, aliases: list[str]
) -> None:
    plan, _ = _plan(tmp_path_factory.getbasetemp(), *(_facts(alias) for alias in ["default", *aliases]))
    wanted = {"default", *(alias for alias in aliases if alias and "\0" not in alias)}
    assert sorted(target.alias for target in plan.targets) == sorted(wanted)


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(f"import os\ndef main():\n    {DEFAULT}\n", id="as Django writes it"),
        pytest.param("import os\nos.environ['DJANGO_SETTINGS_MODULE'] = 'shop.settings'\n", id="assigned"),
        pytest.param(f"if debug():\n    {DEFAULT}\nelse:\n    {DEFAULT}\n", id="twice the same"),
    ],
)
def test_the_settings_are_those_that_manage_py_names(tmp_path: Path, source: str) -> None:
    (tmp_path / "manage.py").write_text(source)
    (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\nDJANGO_SETTINGS_MODULE = "shop.test"\n')
    assert find_project(tmp_path, None).settings == "shop.settings"
    assert find_project(tmp_path, "shop.live").settings == "shop.live"


@pytest.mark.parametrize(
    "text",
    [
        '[tool.pytest.ini_options]\nDJANGO_SETTINGS_MODULE = "shop.settings"\n',
        '[tool.pytest]\nDJANGO_SETTINGS_MODULE = "shop.settings"\n',
        '[tool.django-stubs]\ndjango_settings_module = "shop.settings"\n',
    ],
)
@pytest.mark.parametrize("manage", [None, "import os\n", "this is no Python (", "\0"])
def test_where_manage_py_says_nothing_pyproject_toml_does(tmp_path: Path, text: str, manage: str | None) -> None:
    if manage is not None:
        (tmp_path / "manage.py").write_text(manage)
    (tmp_path / "pyproject.toml").write_text(text)
    assert find_project(tmp_path, None).settings == "shop.settings"


@pytest.mark.parametrize(
    ("files", "settings", "message"),
    [
        ({}, None, "is not a Django project: it has no manage.py"),
        ({"manage.py": "setup()"}, None, "names no settings module in DJANGO_SETTINGS_MODULE that can be read"),
        ({"manage.py": DEFAULT.replace("shop", "no shop")}, None, "names no settings module"),
        ({"manage.py": f"{DEFAULT}\n{DEFAULT.replace('shop.', 'other.')}"}, None, '"other.settings", "shop.settings"'),
        ({"pyproject.toml": "tool = 1"}, None, "is not a Django project"),
        ({"pyproject.toml": "["}, None, "is not a Django project"),
        ({}, "shop/settings.py", 'is not the name of a module (write its dotted name, such as "shop.settings")'),
        ({"src/manage.py": DEFAULT}, None, 'there is one in "src"'),
    ],
)
def test_where_nobody_can_tell_the_settings_it_is_said(
    tmp_path: Path, files: dict[str, str], settings: str | None, message: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(PlanInvalid) as raised:
        find_project(tmp_path, settings)
    assert message in str(raised.value)


@pytest.mark.parametrize("name", ["missing", "manage.py", "a\0b", "x" * 300, "\udcff"])
def test_what_is_no_directory_is_no_project(tmp_path: Path, name: str) -> None:
    (tmp_path / "manage.py").touch()
    with pytest.raises(PlanInvalid):
        find_project(tmp_path / name, "shop.settings")


@pytest.mark.parametrize(
    ("directory", "name"), [("my shop!", "my-shop"), ("Łódź", "d"), ("商店", "project"), ("x" * 200, "x" * 40)]
)
def test_a_project_is_called_as_its_directory_as_far_as_a_plan_allows(
    tmp_path: Path, directory: str, name: str
) -> None:
    (tmp_path / directory).mkdir()
    assert find_project(tmp_path / directory, "shop.settings").name == name

"""What `manage.py lint_migrations` says of migration files, without a database."""

import json
import os
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from smooth_migrations.lint.rules import RULES, Rule
from tests.support.lint_cases import CASES, Case, sources
from tests.support.small_migrations import ITEM, NOTE, run_python
from tests.support.small_project import SmallProject, migration

# Nobody listens there.
AWAY: Final = {"default": {"ENGINE": "django.db.backends.postgresql", "HOST": "127.0.0.1", "PORT": "1", "NAME": "shop"}}
BLIND: Final = migration(
    "migrations.RunPython(forwards)",
    after=[("demo", "0002_note")],
    functions=run_python("apps.get_model('demo', 'Item').objects.all().delete()"),
)
HISTORY: Final = {"demo.0001_item": ITEM, "demo.0002_note": NOTE, "demo.0003_blind": BLIND}


def linted(project: SmallProject, *arguments: str) -> dict[str, Any]:
    """Return what is found for the one database, of a report that tells its own exit code."""
    result = project.run("lint_migrations", "--json", *arguments)
    report = json.loads(result.stdout)
    assert (result.returncode, result.stderr) == (report["exit_code"], "")
    [database] = report["databases"]
    return dict(database)


def spoken(database: Mapping[str, Any], code: str) -> set[str]:
    return {finding["migration"] for finding in database["findings"] if finding["code"] == code}


def looked_at(database: Mapping[str, Any]) -> list[str]:
    return [each["migration"] for each in database["migrations"]]


def line_of(words: str) -> int:
    """Return the line of the last migration that holds these words."""
    [number] = [number for number, line in enumerate(BLIND.splitlines(), 1) if words in line]
    return number


def allowing(comment: str) -> str:
    return BLIND.replace("def forwards", f"{comment}\ndef forwards")


@pytest.fixture
def history(tmp_path: Path) -> SmallProject:
    return SmallProject(tmp_path, AWAY, HISTORY, installed=["django.contrib.contenttypes"])


@pytest.fixture(scope="module")
def cases_away(tmp_path_factory: pytest.TempPathFactory) -> SmallProject:
    return SmallProject(tmp_path_factory.mktemp("cases"), AWAY, sources(*CASES))


@pytest.fixture(scope="module")
def found_away(cases_away: SmallProject) -> dict[bool, dict[str, Any]]:
    """What is found, by whether nothing is held back."""
    return {False: linted(cases_away), True: linted(cases_away, "--no-expand")}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.code)
def test_a_rule_speaks_of_what_it_is_about_and_of_nothing_else(
    case: Case, found_away: dict[bool, dict[str, Any]]
) -> None:
    assert f"{case.code.lower()}_fires.0002_case" in spoken(found_away[case.fires_whole], case.code)
    assert f"{case.code.lower()}_quiet.0002_case" not in spoken(found_away[False], case.code)


def test_every_rule_has_its_case() -> None:
    assert [case.code for case in CASES] == [rule.code for rule in RULES]


def test_where_nothing_is_held_back_what_would_have_been_is_found(history: SmallProject) -> None:
    assert spoken(linted(history), "SM102") == set()
    found = linted(history, "--no-expand")
    assert spoken(found, "SM102") == {"demo.0002_note"}
    assert [each["contract"] for each in found["migrations"]] == [[], [], []]


def test_a_migration_is_told_with_its_halves_its_locks_and_what_is_found_at_which_line(history: SmallProject) -> None:
    result = history.run("lint_migrations")
    line, last = line_of("Item').objects"), line_of("RunPython(")
    assert (result.returncode, result.stderr) == (1, "")
    assert result.stdout == (
        "default: every migration, each as a deploy by itself, since default cannot be read (OperationalError)\n"
        "\n"
        "demo.0002_note\n"
        "  expand: Add field note to item\n"
        "  contract: drop the default of demo_item.note\n"
        "  lock: ACCESS EXCLUSIVE on demo.item, for a change of the catalogue\n"
        "  old release: Add field note to item: "
        "it inserts rows without the column, and the database gives its default\n"
        "  new release: Add field note to item: it writes the column\n"
        "\n"
        "demo.0003_blind\n"
        "  no way back: Raw Python operation (it has no reverse code)\n"
        f"  demo/migrations/0003_blind.py:{line}: SM501 warning: apps.get_model('demo', 'Item').objects "
        "ignores the alias that the migration is run for (use schema_editor.connection.alias)\n"
        f"  demo/migrations/0003_blind.py:{last}: SM401 warning: Raw Python operation: it has no reverse code "
        "(write it, or give noop)\n"
        "\n"
        "3 migrations: 2 findings, 0 notes, 0 allowed\n"
    )


def test_what_a_comment_allows_is_told_with_its_reason_and_fails_nothing(history: SmallProject) -> None:
    history.write_migration("demo.0003_blind", allowing("# smooth: allow SM401, SM501 because there is one database"))
    result = history.run("lint_migrations")
    assert result.returncode == 0
    assert "SM401 allowed because there is one database: Raw Python operation: it has no reverse code" in result.stdout
    assert "0 findings, 0 notes, 2 allowed" in result.stdout


@pytest.mark.parametrize(
    "comment",
    [
        "# smooth: allow SM401, SM501",
        "# smooth: allow because there is one database",
        "x = '# smooth: allow SM401, SM501 because it is a text'",
        "# smooth: allow SM999 because there is no such code",
    ],
)
def test_a_comment_without_a_code_or_a_reason_allows_nothing(history: SmallProject, comment: str) -> None:
    history.write_migration("demo.0003_blind", allowing(comment))
    found = linted(history)
    assert spoken(found, "SM401") == spoken(found, "SM501") == {"demo.0003_blind"}
    assert spoken(found, "SM601") == ({"demo.0003_blind"} if comment.startswith("#") else set())


def test_what_is_recorded_as_applied_is_not_looked_at(tmp_path: Path) -> None:
    database = tmp_path / "shop.db"
    project = SmallProject(
        tmp_path, {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(database)}}, HISTORY
    )
    assert looked_at(linted(project)) == ["demo.0001_item", "demo.0002_note", "demo.0003_blind"]
    assert not database.exists()

    project.succeed("migrate", "demo", "0001", "-v", "0")
    before = database.read_bytes()
    found = linted(project)
    assert found["basis"] == "pending in default"
    assert looked_at(found) == ["demo.0002_note", "demo.0003_blind"]
    assert database.read_bytes() == before

    project.succeed("migrate", "demo", "0002", "-v", "0")
    assert looked_at(linted(project)) == ["demo.0003_blind"]
    assert looked_at(linted(project, "--all")) == ["demo.0001_item", "demo.0002_note", "demo.0003_blind"]


def test_what_the_same_deploy_has_made_is_used_by_no_release_before_it(tmp_path: Path) -> None:
    project = SmallProject(
        tmp_path,
        {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "shop.db")}},
        {"other.0001_thing": ITEM, **sources(CASES[0])},
    )
    assert spoken(linted(project), "SM101") == {"sm101_fires.0002_case"}
    project.succeed("migrate", "other", "-v", "0")
    found = linted(project)
    assert looked_at(found)[-1] == "sm101_quiet.0002_case"
    assert spoken(found, "SM101") == set()


def test_mariadb_is_judged_as_what_it_can_do_without_being_there(tmp_path: Path) -> None:
    pytest.importorskip("MySQLdb")
    mariadb = {**AWAY["default"], "ENGINE": "django.db.backends.mysql"}
    typed = NOTE.replace("models.CharField(max_length=40, default='none')", "models.UUIDField(null=True)")
    retyped = migration(
        "migrations.AlterField('item', 'note', models.CharField(max_length=40))", after=[("demo", "0002_note")]
    )
    project = SmallProject(
        tmp_path, {"default": mariadb}, {"demo.0001_item": ITEM, "demo.0002_note": typed, "demo.0003_retyped": retyped}
    )
    found = linted(project)
    assert spoken(found, "SM101") == spoken(found, "SM201") == {"demo.0003_retyped"}
    [rewrite] = found["migrations"][2]["rewrites"]
    assert rewrite == "Alter field note on item: its type changes from uuid to varchar(40)"


def test_without_a_kind_of_server_nothing_can_be_said(tmp_path: Path) -> None:
    result = SmallProject(tmp_path, {}, HISTORY).run("lint_migrations")
    assert (result.returncode, result.stdout) == (2, "")
    assert "the settings name no server for default" in result.stderr


def test_migrations_that_cannot_be_imported_are_a_usage_error(history: SmallProject) -> None:
    history.write_migration("demo.0004_sort", "nonsense(")
    result = history.run("lint_migrations")
    assert (result.returncode, result.stdout) == (2, "")
    assert "CommandError: the migrations cannot be read: SyntaxError: " in result.stderr


def test_a_default_that_asks_the_database_is_not_known_without_one(history: SmallProject) -> None:
    counted = NOTE.replace("note", "count").replace("'none'", "counted").replace("0001_item", "0003_blind")
    function = (
        "def counted():\n"
        "    from django.contrib.contenttypes.models import ContentType\n"
        "    return ContentType.objects.count()\n\n"
    )
    history.write_migration("demo.0004_count", counted.replace("class Migration", f"{function}class Migration"))
    assert [each["contract"] for each in linted(history)["migrations"]][3] == ["set demo_item.count NOT NULL"]


@pytest.mark.long
def test_a_server_that_says_nothing_is_given_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        server = {**AWAY["default"], "PORT": str(silent.getsockname()[1])}
        found = linted(SmallProject(tmp_path, {"default": server}, HISTORY))
    assert found["basis"].endswith("since default cannot be read (OperationalError)")


def test_since_a_revision_what_was_changed_or_added_is_looked_at(history: SmallProject, tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        identity = {
            f"GIT_{who}_{what}": "x@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
        }
        nobody = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
        subprocess.run(
            ["git", *arguments], cwd=tmp_path, env={**os.environ, **identity, **nobody}, check=True, capture_output=True
        )

    git("init", "--initial-branch=main")
    git("add", ".")
    git("commit", "-m", "release")
    assert looked_at(linted(history, "--since", "main")) == []

    git("checkout", "-b", "feature")
    history.write_migration("demo.0004_sort", NOTE.replace("note", "sort").replace("0001_item", "0003_blind"))
    git("add", ".")
    git("commit", "-m", "sort")
    history.write_migration("demo.0005_size", NOTE.replace("note", "size").replace("0001_item", "0004_sort"))
    found = linted(history, "--since", "main")
    assert (found["basis"], looked_at(found)) == ("changed since main", ["demo.0004_sort", "demo.0005_size"])

    result = history.run("lint_migrations", "--since", "nowhere")
    assert (result.returncode, result.stdout) == (2, "")
    assert "name a revision that was fetched, or use --all" in result.stderr


def test_the_migrations_of_installed_packages_are_not_the_projects_unless_they_are_named(tmp_path: Path) -> None:
    project = SmallProject(tmp_path, AWAY, HISTORY, installed=["django.contrib.contenttypes", "django.contrib.auth"])
    assert {name.partition(".")[0] for name in looked_at(linted(project, "--all"))} == {"demo"}
    assert {name.partition(".")[0] for name in looked_at(linted(project, "--all", "auth"))} == {"auth"}
    assert project.run("lint_migrations", "nosuch").returncode == 2


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_a_codes_page_says_why_and_what_to_do(rule: Rule) -> None:
    title, *paragraphs = str(rule.told()).split("\n\n")
    assert title.startswith(f"{rule.code} ({rule.level}): ")
    assert len(paragraphs) >= 2


def test_a_code_is_explained(history: SmallProject) -> None:
    [rule] = [rule for rule in RULES if rule.code == "SM401"]
    assert history.succeed("lint_migrations", "--explain", "SM401") == f"{rule.told()}\n"
    assert history.run("lint_migrations", "--explain", "SM999").returncode == 2

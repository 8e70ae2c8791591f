"""The permissions of a renamed model: what users were granted, each release finds by the names that it asks for."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.new_databases import NewDatabases
from tests.support.postgres_database import PostgresDatabase
from tests.support.skew.by_plan import ByPlan
from tests.support.skew.releases import ByCommand, Releases, Skew, Way
from tests.support.small_project import SmallProject, migration

pytestmark = pytest.mark.timeout(180)

_OLD_MODELS: Final = """\
class Item(Row):
    name = models.CharField(max_length=40)

    class Meta:
        permissions = [("taste", "Can taste")]
"""
_GRANT: Final = """\

class Grant(Row):
    permission = models.ForeignKey("auth.Permission", models.CASCADE)


"""
_RENAME: Final = "migrations.RenameModel('Item', 'Thing')"
_OTHER_TABLE: Final = Skew(_GRANT + _OLD_MODELS, _GRANT + _OLD_MODELS.replace("Item", "Thing"), (_RENAME,))
_SAME: Final = f"{_OLD_MODELS}        db_table = 'items'\n"
_SAME_TABLE: Final = Skew(_GRANT + _SAME, _GRANT + _SAME.replace("Item", "Thing"), (_RENAME,))
_SECOND: Final = ("demo", "0002_second")
_USERS: Final = ["django.contrib.contenttypes", "django.contrib.auth"]
_ADD_USERS: Final = """\
from django.contrib.auth.models import Group, Permission, User

def named(name):
    return Permission.objects.get(content_type__app_label="demo", codename=name)

group = Group.objects.create(name="cooks")
group.permissions.add(named("view_item"), named("taste"))
User.objects.create(username="ann").groups.add(group)
User.objects.create(username="bob").user_permissions.add(named("change_item"))
User.objects.create(username="eve")
"""
_GIVE: Final = """\
from demo.models import Grant
from django.contrib.auth.models import Permission, User

named = Permission.objects.get(content_type__app_label="demo", codename="delete_item")
User.objects.get(username="eve").user_permissions.add(named)
Grant.objects.create(by="eve", stamp=7, permission=named)
"""
_ASK: Final = """\
import json
from django.contrib.auth.models import User

print(json.dumps({user.username: sorted(user.get_all_permissions()) for user in User.objects.all()}))
"""
_OLD: Final = {"ann": ["demo.taste", "demo.view_item"], "bob": ["demo.change_item"], "eve": []}
# What there is, and who has it, whatever the keys are.
_THERE: Final = """
    SELECT app_label, model, codename, auth_permission.name,
        ARRAY(SELECT group_id FROM auth_group_permissions WHERE permission_id = auth_permission.id ORDER BY 1),
        ARRAY(SELECT user_id FROM auth_user_user_permissions WHERE permission_id = auth_permission.id ORDER BY 1),
        ARRAY(SELECT stamp FROM demo_grant WHERE permission_id = auth_permission.id ORDER BY 1)
    FROM django_content_type LEFT JOIN auth_permission ON content_type_id = django_content_type.id
    WHERE app_label = 'demo' ORDER BY 1, 2, 3
"""


def _releases(directory: Path, case: Skew, databases: NewDatabases) -> Releases:
    """Return releases of which the older one is there, with users who have been granted something."""
    releases = Releases(directory, case, databases.new(), databases.new(), installed=_USERS)
    releases.migrate()
    _run(releases.old, _ADD_USERS)
    return releases


def _there(releases: Releases) -> list[tuple[Any, ...]]:
    database = releases.databases["default"]
    assert isinstance(database, PostgresDatabase)
    with database.connect() as session:
        return session.execute(_THERE).fetchall()


def _run(project: SmallProject, code: str) -> str:
    return project.succeed("shell", "--verbosity", "0", "--command", code)


def _granted(project: SmallProject) -> dict[str, list[str]]:
    granted: dict[str, list[str]] = json.loads(_run(project, _ASK).splitlines()[-1])
    return granted


@pytest.fixture(params=[_OTHER_TABLE, pytest.param(_SAME_TABLE, marks=pytest.mark.long)], ids=["renamed", "same table"])
def case(request: pytest.FixtureRequest) -> Skew:
    """A model that gets another name, with its table or without."""
    skew: Skew = request.param
    return skew


@pytest.fixture
def stock(pg_databases: NewDatabases, tmp_path: Path, case: Skew) -> Releases:
    """What `migrate` makes of it."""
    releases = _releases(tmp_path / "stock", case, pg_databases)
    releases.new.succeed("migrate", "--verbosity=0")
    return releases


@pytest.fixture
def ours(pg_databases: NewDatabases, tmp_path: Path, case: Skew) -> Releases:
    """The same, before it is deployed."""
    return _releases(tmp_path / "ours", case, pg_databases)


def test_each_release_finds_what_was_granted_by_the_names_that_it_knows(stock: Releases, ours: Releases) -> None:
    way = ByCommand(ours)

    way.deploy()

    old, new = _granted(ours.old), _granted(stock.new)
    assert {user: [*filter(_is_of_old, names)] for user, names in old.items()} == _OLD
    # Of whom it asks by the new names, as `migrate` lets it.
    assert {user: [*filter(_is_of_new, names)] for user, names in _granted(ours.new).items()} == {
        user: [*filter(_is_of_new, names)] for user, names in new.items()
    }
    way.finalise()
    assert _there(ours) == _there(stock)
    assert _granted(ours.new) == new


def test_what_the_release_before_grants_meanwhile_stays(stock: Releases, ours: Releases) -> None:
    _run(stock.new, _GIVE.replace("delete_item", _stays(stock, "delete")))
    way = ByCommand(ours)
    way.deploy()

    _run(ours.old, _GIVE)
    way.finalise()

    assert _there(ours) == _there(stock)


@pytest.mark.parametrize("kind", [ByCommand, ByPlan])
def test_going_back_leaves_what_was_there_and_what_was_granted_meanwhile(
    ours: Releases, kind: Callable[[Releases], Way]
) -> None:
    way = kind(ours)
    before = _there(ours)
    way.deploy()
    _run(ours.old, _GIVE)

    way.roll_back()

    assert _granted(ours.old) == _OLD | {"eve": ["demo.delete_item"]}
    # Before 6.1 Django makes permissions for the new name, which the command leaves when it goes back, as `migrate`.
    assert [row[:4] for row in _there(ours) if not str(row[2]).endswith("_thing")] == [row[:4] for row in before]
    assert ours.new.succeed("finalise_migrations") == "  Nothing is held back.\n"


@pytest.mark.long
@pytest.mark.parametrize("case", [_SAME_TABLE], indirect=True)
@pytest.mark.parametrize(
    "taking",
    [
        "migrations.CreateModel('Item', [('id', models.BigAutoField(primary_key=True))], options={'db_table': 'b'})",
        "migrations.RenameModel('Grant', 'Item')",
    ],
)
def test_a_model_that_takes_the_old_name_is_refused(ours: Releases, taking: str) -> None:
    ours.new.write_migration("demo.0003_item", migration(taking, after=[_SECOND]))

    refused = ours.new.run("apply_migrations", "--expand")

    assert refused.returncode == 3
    assert "its name is still that of a model that has been renamed (finalise first, or" in refused.stderr


@pytest.mark.long
def test_a_model_that_keeps_its_table_may_be_changed_by_the_next_deploy_but_for_its_name(
    databases: NewDatabases, tmp_path: Path
) -> None:
    releases = _releases(tmp_path, _SAME_TABLE, databases)
    ByCommand(releases).deploy()
    changed = migration("migrations.AddField('thing', 'size', models.IntegerField(null=True))", after=[_SECOND])
    releases.new.write_migration("demo.0003_size", changed)

    releases.new.succeed("apply_migrations", "--expand")

    assert {user: [*filter(_is_of_old, names)] for user, names in _granted(releases.old).items()} == _OLD
    renamed = migration("migrations.RenameModel('Thing', 'Part')", after=[("demo", "0003_size")])
    releases.new.write_migration("demo.0004_part", renamed)
    refused = releases.new.run("apply_migrations", "--expand")
    assert refused.returncode == 3
    assert "Rename model Thing to Part touches what is still held back (demo.0002_second: drop content type item)" in (
        refused.stderr
    )


def _is_of_old(name: str) -> bool:
    return name.endswith("_item") or name == "demo.taste"


def _is_of_new(name: str) -> bool:
    return name.endswith("_thing") or name == "demo.taste"


def _stays(releases: Releases, action: str) -> str:
    """Return by which name Django keeps what was granted."""
    names = {row[2] for row in _there(releases)}
    return f"{action}_item" if f"{action}_item" in names else f"{action}_thing"

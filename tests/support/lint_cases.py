"""For every code of the lint a migration that it is about, and one like it that it is not about."""

from dataclasses import dataclass

from tests.support.small_migrations import ITEM
from tests.support.small_project import migration

__all__ = ["CASES", "Case", "sources"]

_FUNCTIONS = """\
from smooth_migrations import Backfill


def blind(apps, schema_editor):
    apps.get_model("{app}", "Item").objects.filter(name="").delete()


def aware(apps, schema_editor):
    apps.get_model("{app}", "Item").objects.using(schema_editor.connection.alias).filter(name="").delete()


class OwnAddField(migrations.AddField):
    pass
"""


@dataclass(frozen=True, slots=True)
class Case:
    """Operations of a migration `0002_case` on a table that was there before.

    Args:
        code: of the rule.
        fires: it has something to say of the first of these operations.
        quiet: it has nothing to say of these.
        atomic: whether the first one is.
        quiet_atomic: whether the other one is.
        fires_whole: whether the first one is one where nothing is held back.
        comment: stands in the first one.
    """

    code: str
    fires: tuple[str, ...]
    quiet: tuple[str, ...]
    atomic: bool = True
    quiet_atomic: bool = True
    fires_whole: bool = False
    comment: str = ""


_NULLABLE = "migrations.AddField('item', 'note', models.TextField(null=True))"
_CHECK = "models.CheckConstraint(condition=models.Q(name__gt=''), name='{app}_named')"
_BUILD = "AddIndexConcurrently('item', models.Index(fields=['name'], name='{app}_index'))"
_INDEX = "migrations.AddIndex('item', models.Index(fields=['name'], name='{app}_index'))"
_AWARE = "migrations.RunPython(aware, migrations.RunPython.noop)"

CASES = (
    Case(
        "SM101",
        ("migrations.AlterField('item', 'name', models.IntegerField())",),
        ("migrations.AlterField('item', 'name', models.TextField())",),
    ),
    Case(
        "SM102",
        (f"AddConstraintNotValid('item', {_CHECK})",),
        (f"migrations.AddConstraint('item', {_CHECK})",),
    ),
    Case(
        "SM103",
        ("migrations.RunSQL('ALTER TABLE {app}_item DROP COLUMN name', '')",),
        ("migrations.RunSQL(\"INSERT INTO {app}_item (name) VALUES ('DROP TABLE') -- DROP TABLE\", '')",),
    ),
    Case("SM104", ("OwnAddField('item', 'note', models.TextField(null=True))",), (_NULLABLE,)),
    Case(
        "SM105",
        ("migrations.AddField('item', 'note', models.CharField(max_length=9, unique=True))",),
        ("migrations.AddField('item', 'note', models.CharField(max_length=9, default='none'))",),
    ),
    Case(
        "SM201",
        ("migrations.AddField('item', 'day', models.FloatField(db_default=models.functions.Random()))",),
        ("migrations.AddField('item', 'day', models.DateTimeField(db_default=models.functions.Now()))",),
    ),
    Case(
        "SM202",
        ("migrations.AddField('item', 'size', models.PositiveIntegerField(null=True, db_index=True))",),
        (
            _INDEX,
            "migrations.AlterField('item', 'name', models.CharField(max_length=40, db_index=True))",
            "migrations.AddField('item', 'note', models.TextField(null=True, db_index=True))",
        ),
    ),
    Case(
        "SM203",
        (f"migrations.AddConstraint('item', {_CHECK})",),
        (f"migrations.AddConstraint('item', {_CHECK})",),
        fires_whole=True,
    ),
    Case("SM301", (_NULLABLE, _BUILD), (_BUILD,), atomic=False, quiet_atomic=False),
    Case("SM302", (_BUILD,), (_BUILD,), quiet_atomic=False),
    Case("SM303", (_AWARE, _NULLABLE), (_AWARE,)),
    Case("SM401", ("migrations.RunPython(aware)",), (_AWARE,)),
    Case(
        "SM402",
        ("migrations.AlterField('item', 'name', models.IntegerField())",),
        ("migrations.AlterField('item', 'name', models.CharField(max_length=80))",),
    ),
    Case("SM501", ("migrations.RunPython(blind, migrations.RunPython.noop)",), (_AWARE,)),
    Case("SM601", (_NULLABLE,), (_NULLABLE,), comment="# smooth: allow SM401"),
)


def sources(*cases: Case) -> dict[str, str]:
    """Return an app `sm…_fires` and an app `sm…_quiet` for each case, by the names of their migrations."""
    found = {}
    for case in cases:
        for name, operations, atomic in (("fires", case.fires, case.atomic), ("quiet", case.quiet, case.quiet_atomic)):
            app = f"{case.code.lower()}_{name}"
            comment = case.comment if name == "fires" else ""
            found[f"{app}.0001_item"] = ITEM
            found[f"{app}.0002_case"] = migration(
                *(operation.replace("{app}", app) for operation in operations),
                after=[(app, "0001_item")],
                atomic=atomic,
                functions=f"{_FUNCTIONS.replace('{app}', app)}\n\n{comment}\n",
            ).replace("import AddIndexConcurrently", "import AddConstraintNotValid, AddIndexConcurrently")
    return found

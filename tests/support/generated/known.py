"""Histories that were generated once, went wrong, and were shrunk by hand to what is the matter."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from tests.support.generated_histories import PLANTED, GeneratedHistory
from tests.support.histories import Vendor
from tests.support.small_migrations import run_python
from tests.support.small_project import migration

__all__ = ["KNOWN"]

_FAIL = run_python(f"raise ValueError('{PLANTED}')")
_THING = (
    "migrations.CreateModel('Thing', [('id', models.BigAutoField(primary_key=True)), "
    "('first', models.SlugField(null=True)), ('second', models.IntegerField(default=0))])"
)
# SQLite makes the table anew for each of these.
_NUMBER = "migrations.AddField('thing', 'number', models.IntegerField(default=0))"
_UNIQUE = "migrations.AddConstraint('thing', models.UniqueConstraint(fields=['first'], name='thing_first'))"
_ROW = "migrations.RunSQL('INSERT INTO north_thing (first, second) VALUES (NULL, 7)', 'DELETE FROM north_thing')"
_RAW = "migrations.RunSQL('CREATE INDEX raw ON north_thing (id)', 'DROP INDEX raw')"
_RENAME = "migrations.RenameField('thing', 'first', 'third')"
# SQLite's Django leaves the index of the slug on a name that is no column.
_SLUGS = "migrations.CreateModel('slugs', [('id', models.BigAutoField(primary_key=True)), ('a', models.SlugField())])"
_SLUGS_RENAMED = "migrations.RenameField('slugs', 'a', 'b')"
# Django makes the index of the new key when the migration ends, whatever became of the field.
_KEY = "migrations.AddField('thing', 'other', models.ForeignKey('north.thing', models.CASCADE, null=True))"
_KEY_WITHOUT_INDEX = _KEY.replace("AddField", "AlterField").replace("null=True", "null=True, db_index=False")
# Fields that no row can do without.
_PLAIN = (
    "migrations.CreateModel('plain', [('id', models.AutoField(primary_key=True)), ('number', models.IntegerField()), "
    "('share', models.FloatField(db_index=True)), ('raw', models.BinaryField()), ('day', models.DateTimeField())])"
)
_ONCE = (
    "migrations.CreateModel('once', [('name', models.CharField(max_length=9, primary_key=True)), "
    "('code', models.IntegerField(unique=True)), ('select', models.CharField(max_length=9))])"
)
_KEYED = (
    "migrations.CreateModel('keyed', [('id', models.UUIDField(primary_key=True)), "
    "('thing', models.ForeignKey('north.thing', models.CASCADE))])"
)
_REMOVED = (
    *(("plain", name) for name in ("number", "share", "raw", "day")),
    *(("once", name) for name in ("code", "select")),
    ("keyed", "thing"),
)
_ROWS_OF_CODE = (
    "migrations.RunSQL(["
    "('INSERT INTO north_plain (number, share, raw, day) VALUES (%s, %s, %s, %s), (%s, %s, %s, %s)', "
    "[7, 1 / 3, b'\\0x', '2026-01-02 03:04:05.000006', -1, 1e300, b'', '0001-01-01 00:00:00']), "
    "('INSERT INTO north_once (name, code, \"select\") VALUES (%s, %s, %s), (%s, %s, %s)', "
    "['a%', 1, '%', \"b'\", 2, '']), "
    "(\"INSERT INTO north_keyed (id, thing_id) SELECT '00000000000000000000000000000001', min(id) FROM north_thing\", "
    "[])], [('DELETE FROM north_plain WHERE number IN (%s, %s) AND share > 0', [7, -1]), "
    "('DELETE FROM north_once WHERE code < %s', [3]), ('DELETE FROM north_keyed WHERE thing_id > %s', [0])])"
)
# What no transaction of the call can be around.
_DURABLE = (
    "migrations.RunPython(lambda apps, editor: __import__('django.db.transaction', fromlist=['atomic'])"
    ".atomic(editor.connection.alias, durable=True)(int)(), migrations.RunPython.noop)"
)


def _renamed_before(vendor: Vendor) -> GeneratedHistory:
    return _cut(vendor, [(_THING, _RENAME)], [(_NUMBER,)])


def _model_renamed_meanwhile(vendor: Vendor) -> GeneratedHistory:
    alter = "migrations.AlterField('thing', 'second', models.IntegerField(default=0, db_index=True))"
    return _cut(vendor, [(_THING,)], [(alter, "migrations.RenameModel('thing', 'other')")])


def _raw_index_before(vendor: Vendor) -> GeneratedHistory:
    return _cut(vendor, [(_THING, _RAW)], [(_NUMBER,)])


def _raw_index_meanwhile(vendor: Vendor) -> GeneratedHistory:
    return _cut(vendor, [(_THING,)], [(_RAW, _UNIQUE)])


def _squash_half_applied(vendor: Vendor) -> GeneratedHistory:
    history = _cut(vendor, [(_THING,)], [(_NUMBER,), ("migrations.RunSQL('SELECT 1', 'SELECT 1')",)])
    squash = migration(_THING, _NUMBER, atomic=False).replace(
        "    operations", "    replaces = [('north', '0001'), ('north', '0002')]\n    operations"
    )
    return GeneratedHistory(
        vendor=vendor,
        applied=history.applied,
        everything={**history.everything, "north.0001_to_0002": squash},
        planted={**history.planted, "north.0001_to_0002": squash},
        one_transaction=False,
    )


def _unique_made_plain(vendor: Vendor) -> GeneratedHistory:
    made = _THING.replace("models.SlugField(null=True)", "models.SlugField(unique=True)")
    return _cut(vendor, [(made,)], [("migrations.AlterField('thing', 'first', models.SlugField())",)])


def _field_of_no_rows_removed(vendor: Vendor) -> GeneratedHistory:
    return _cut(vendor, [(_THING,)], [("migrations.RemoveField('thing', 'first')",)])


def _nulls_filled(vendor: Vendor) -> GeneratedHistory:
    filled = "migrations.AlterField('thing', 'first', models.SlugField(default='filled'))"
    return _cut(vendor, [(_THING, _ROW)], [(filled,)])


def _renamed_and_emptied(vendor: Vendor) -> GeneratedHistory:
    rename = "migrations.RenameModel('thing', 'other')"
    return _cut(vendor, [(_THING, _ROW)], [(rename,), ("migrations.RemoveField('other', 'second')",)])


def _renamed_before_and_dropped(vendor: Vendor) -> GeneratedHistory:
    rename = "migrations.RenameModel('thing', 'other')"
    return _cut(vendor, [(_THING, rename)], [("migrations.DeleteModel('other')",)])


def _field_with_raw_index_removed(vendor: Vendor) -> GeneratedHistory:
    raw = "migrations.RunSQL('CREATE INDEX raw ON north_thing (second)', 'DROP INDEX raw')"
    remove = ("migrations.RunSQL('DROP INDEX raw', 'CREATE INDEX raw ON north_thing (second)')",)
    removals = {Vendor.SQLITE: remove}.get(vendor, ())
    return _cut(vendor, [(_THING, raw)], [(*removals, "migrations.RemoveField('thing', 'second')")])


def _made_anew_step_by_step(vendor: Vendor) -> GeneratedHistory:
    first = "migrations.AlterField('thing', 'first', models.SlugField(null=True, max_length=60))"
    return _cut(vendor, [(_THING, _RAW, _ROW)], [(first,), (_DURABLE,)])


def _removed_step_by_step(vendor: Vendor) -> GeneratedHistory:
    made = "CREATE TRIGGER watched AFTER INSERT ON north_thing BEGIN SELECT 1; END"
    trigger = {Vendor.SQLITE: (f"migrations.RunSQL('{made}', 'DROP TRIGGER watched')",)}.get(vendor, ())
    check = "migrations.RunSQL('CREATE TABLE of_thing (a integer REFERENCES north_thing (id))', 'DROP TABLE of_thing')"
    remove = "migrations.RemoveField('thing', 'first')"
    return _cut(vendor, [(_THING, _RAW, *trigger, check)], [(remove, _NUMBER), (_DURABLE,)])


def _index_unmade_before_it_is_made(vendor: Vendor) -> GeneratedHistory:
    made = (
        "migrations.CreateModel('Other', [('id', models.BigAutoField(primary_key=True)), "
        "('to', models.ForeignKey('north.thing', models.CASCADE))])"
    )
    unmade = "migrations.AlterField('other', 'to', models.ForeignKey('north.thing', models.CASCADE, db_index=False))"
    added = "migrations.AddField('thing', 'own', models.ForeignKey('north.thing', models.CASCADE, null=True))"
    again = "models.ForeignKey('north.thing', models.CASCADE, null=True, db_index=False)"
    altered = f"migrations.SeparateDatabaseAndState([migrations.AlterField('thing', 'own', {again})])"
    return _cut(vendor, [(_THING,)], [(made, unmade), (added, altered), (_DURABLE,)])


def _nothing_before_a_table_of_sql(vendor: Vendor) -> GeneratedHistory:
    made = "migrations.RunSQL('CREATE TABLE raw_rows (a integer)', 'DROP TABLE raw_rows')"
    filled = "migrations.RunSQL('INSERT INTO raw_rows VALUES (1)', 'DELETE FROM raw_rows')"
    return _cut(vendor, [], [(_THING, made, filled), (_DURABLE,)])


def _nothing_before_tables_that_are_renamed(vendor: Vendor) -> GeneratedHistory:
    rename = "migrations.RenameModel('thing', 'other')"
    made = "migrations.RunSQL('CREATE TABLE raw_rows (a integer)', 'DROP TABLE raw_rows')"
    filled = "migrations.RunSQL('INSERT INTO raw_rows VALUES (1)', 'DELETE FROM raw_rows')"
    renamed = "migrations.RunSQL('ALTER TABLE raw_rows RENAME TO raw_kept', 'ALTER TABLE raw_kept RENAME TO raw_rows')"
    return _cut(vendor, [], [(_THING, _ROW, rename), (made, filled, renamed), (_DURABLE,)])


def _index_lost_within_a_migration(vendor: Vendor) -> GeneratedHistory:
    added = "migrations.AddField('thing', 'number', models.IntegerField())"
    return _in_one_transaction_each(
        _cut(vendor, [(_THING,)], [(_DURABLE,), (_RAW, added), ("migrations.RunSQL('SELECT 1', 'SELECT 1')",)])
    )


def _rows_deleted_before_their_table_is_altered_back(vendor: Vendor) -> GeneratedHistory:
    others = "migrations.AddField('thing', 'others', models.ManyToManyField('north.thing'))"
    altered = "migrations.AlterField('thing', 'second', models.PositiveIntegerField(default=0))"
    return _in_one_transaction_each(_cut(vendor, [(_THING, others)], [(altered, _ROW), (_DURABLE,)]))


def _index_left_on_a_name_that_is_no_column(vendor: Vendor) -> GeneratedHistory:
    return _cut(vendor, [(_THING,)], [(_SLUGS, _DURABLE, _SLUGS_RENAMED), (_DURABLE,)])


def _index_left_where_each_migration_is_committed_by_itself(vendor: Vendor) -> GeneratedHistory:
    return _in_one_transaction_each(_cut(vendor, [(_THING,)], [(_SLUGS, _SLUGS_RENAMED), (_DURABLE,)]))


def _index_on_what_looks_like_no_column(vendor: Vendor) -> GeneratedHistory:
    # As Django writes an index on a key of JSON, and one on a name that was no column from the beginning.
    keyed = """'CREATE INDEX keyed ON north_slugs (replace("a", \\'"b"\\', \\'\\'))'"""
    made = f"migrations.RunSQL({keyed}, 'DROP INDEX keyed')"
    hollow = "'CREATE INDEX hollow ON north_slugs (\"nowhere\")'"
    strange = [f"migrations.RunSQL({hollow}, 'DROP INDEX hollow')"] if vendor is Vendor.SQLITE else []
    return _cut(vendor, [(_THING, _SLUGS, made, *strange)], [(_DURABLE,), (_RAW,), (_DURABLE,)])


def _index_made_after_its_field_was_to_have_none(vendor: Vendor) -> GeneratedHistory:
    return _cut(vendor, [(_THING,)], [(_KEY, _DURABLE, _KEY_WITHOUT_INDEX), (_DURABLE,)])


def _index_made_so_where_each_migration_is_committed_by_itself(vendor: Vendor) -> GeneratedHistory:
    return _in_one_transaction_each(_cut(vendor, [(_THING,)], [(_KEY, _RENAME, _KEY_WITHOUT_INDEX), (_DURABLE,)]))


def _key_made_after_its_field_was_to_have_none(vendor: Vendor) -> GeneratedHistory:
    key = "('other', models.ForeignKey('north.thing', models.CASCADE{}))"
    made = f"migrations.CreateModel('keys', [('id', models.BigAutoField(primary_key=True)), {key.format('')}])"
    altered = "migrations.AlterField('keys', " + key.format(", db_constraint=False")[1:]
    looked = "migrations.RunSQL('SELECT 1', 'SELECT 1')"
    return _in_one_transaction_each(_cut(vendor, [(_THING,)], [(made, looked, altered), (_DURABLE,)]))


def _removed_from_rows_of_code(vendor: Vendor) -> GeneratedHistory:
    removals = [(f"migrations.RemoveField('{model}', '{field}')",) for model, field in _REMOVED]
    return _cut(vendor, [(_THING, _ROW, _PLAIN, _ONCE, _KEYED)], [(_ROWS_OF_CODE,), *removals, (_DURABLE,)])


def _removed_from_rows_of_code_by_transactions(vendor: Vendor) -> GeneratedHistory:
    return _in_one_transaction_each(_removed_from_rows_of_code(vendor))


def _in_one_transaction_each(history: GeneratedHistory) -> GeneratedHistory:
    """Return a history of which each migration has a transaction, but for those that cannot."""

    def atomic(sources: Mapping[str, str]) -> dict[str, str]:
        return {
            key: source if "durable" in source else source.replace("atomic = False", "atomic = True")
            for key, source in sources.items()
        }

    return replace(history, everything=atomic(history.everything), planted=atomic(history.planted))


KNOWN: Mapping[str, Callable[[Vendor], GeneratedHistory]] = {
    "a table made anew after a field was renamed": _renamed_before,
    "a model renamed after its table was made anew": _model_renamed_meanwhile,
    "a table made anew that had an index no model knows of": _raw_index_before,
    "an index no model knows of that is lost before it is to be dropped": _raw_index_meanwhile,
    "a unique field made plain": _unique_made_plain,
    "a field removed from a table without rows": _field_of_no_rows_removed,
    "a field made NOT NULL where a row had NULL": _nulls_filled,
    "a model renamed, then a field with values removed from it": _renamed_and_emptied,
    "a table without rows dropped that had another name": _renamed_before_and_dropped,
    "a field removed with an index no model knows of": _field_with_raw_index_removed,
    "a table made anew where each migration is committed by itself": _made_anew_step_by_step,
    "a field removed where each migration is committed by itself": _removed_step_by_step,
    "an index unmade within the migration that makes it": _index_unmade_before_it_is_made,
    "a table of SQL with rows in a database that held nothing": _nothing_before_a_table_of_sql,
    "tables with rows that are renamed in a database that held nothing": _nothing_before_tables_that_are_renamed,
    "an index that the same migration makes and loses": _index_lost_within_a_migration,
    "rows that are deleted before their table is altered back": _rows_deleted_before_their_table_is_altered_back,
    "an index that is left on a name that is no column": _index_left_on_a_name_that_is_no_column,
    "an index that is left on such a name by a transaction": _index_left_where_each_migration_is_committed_by_itself,
    "an index that only looks as if it were on no column": _index_on_what_looks_like_no_column,
    "an index that is made after its field was to have none": _index_made_after_its_field_was_to_have_none,
    "an index made so by a transaction": _index_made_so_where_each_migration_is_committed_by_itself,
    "a key that is made after its field was to have none": _key_made_after_its_field_was_to_have_none,
    "fields removed from rows that code of the same call has put there": _removed_from_rows_of_code,
    "fields removed from such rows by transactions": _removed_from_rows_of_code_by_transactions,
    "a squash of which the first half was applied before": _squash_half_applied,
}


def _cut(vendor: Vendor, applied: list[tuple[str, ...]], pending: list[tuple[str, ...]]) -> GeneratedHistory:
    sources: dict[str, str] = {}
    planted: dict[str, str] = {}
    for number, operations in enumerate([*applied, *pending], start=1):
        after = [("north", f"{number - 1:04}")] if number > 1 else []
        arguments: dict[str, Any] = {"after": after, "atomic": number <= len(applied)}
        is_last = number == len(applied) + len(pending)
        sources[f"north.{number:04}"] = migration(*operations, **arguments)
        planted[f"north.{number:04}"] = (
            migration(*operations, "migrations.RunPython(forwards, nothing)", functions=_FAIL, **arguments)
            if is_last
            else sources[f"north.{number:04}"]
        )
    return GeneratedHistory(
        vendor=vendor,
        applied={key: source for key, source in sources.items() if int(key[-4:]) <= len(applied)},
        everything=sources,
        planted=planted,
        one_transaction=False,
    )

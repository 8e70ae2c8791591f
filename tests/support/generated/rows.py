"""Operations that move rows, and raw SQL; each returns None where it is not possible."""

from collections.abc import Sequence

from tests.support.generated.columns import NUMBERS, TEXTS, key_literal, literal
from tests.support.generated.world import Choices, Column, Context, Model, Operation, Relation, World

__all__ = ["insert", "link", "raw_index", "raw_rows", "raw_table", "raw_update", "update"]

_DEPTH = 3
_ONE_WAY = 10  # per cent of what has no way back is tried where that matters


def insert(world: World, choices: Choices, context: Context) -> Operation | None:
    """RunPython that makes rows, of what they refer to as well, and deletes them on the way back."""
    models = world.of_app(context.app)
    if not models:
        return None
    made: list[tuple[Model, str | None]] = []
    lines: list[str] = []
    for _ in range(1 + choices.below(3)):
        # Only where nobody has to find them again may they be given the next number.
        hidden = context.free and choices.chance(20)
        _insert_one(world, choices, choices.of(models), lines, made, hidden=hidden)
    if not made:
        return None
    undo = [f"{_manager(model)}.filter(pk={key}).delete()" for model, key in reversed(made) if key is not None]
    return _python(world, choices, lines, undo, one_way=any(key is None for _model, key in made), context=context)


def update(world: World, choices: Choices, context: Context) -> Operation | None:
    """RunPython that changes every row, exactly back again."""
    found = [
        (model, column)
        for model in world.of_app(context.app)
        for column in model.columns.values()
        if column.kind in (*NUMBERS, *TEXTS) and not column.unique and column.name not in model.bound()
    ]
    if not found:
        return None
    model, column = choices.of(found)
    is_number = column.kind in NUMBERS
    forwards, backwards = (("+ 1", "- 1") if is_number else ("+ 'u'", "[:-1]")) if not column.choices else ("", "")
    if not forwards:
        return None
    lines = _each_row(model, column, forwards)
    return _python(world, choices, lines, _each_row(model, column, backwards), one_way=False, context=context)


def link(world: World, choices: Choices, context: Context) -> Operation | None:
    """RunPython that connects rows of a many-to-many relation."""
    found = [
        (model, column, column.target)
        for model in world.of_app(context.app)
        for column in model.columns.values()
        if column.kind == Relation.MANY and column.through is None and column.target and model.rows
        if column.target.rows and column.target is not model
    ]
    if not found:
        return None
    model, column, target = choices.of(found)
    pair = (choices.of(model.rows), choices.of(target.rows))
    if pair in column.links:
        return None
    column.links.add(pair)
    relation = f"{_manager(model)}.get(pk={pair[0]}).{column.name}"
    return _python(
        world,
        choices,
        [f"{relation}.add({pair[1]})"],
        [f"{relation}.remove({pair[1]})"],
        one_way=False,
        context=context,
    )


def raw_table(world: World, choices: Choices, context: Context) -> Operation | None:
    """RunSQL that makes a table, perhaps with a view of it."""
    del context
    name = f"raw_{world.number('raw')}"
    world.raw_tables.append(name)
    forwards, backwards = [f"CREATE TABLE {name} (a integer)"], [f"DROP TABLE {name}"]
    if choices.chance(30):
        forwards += [f"CREATE VIEW {name}_view AS SELECT a FROM {name}"]
        backwards = [f"DROP VIEW {name}_view", *backwards]
    return Operation(f"migrations.RunSQL({forwards}, {backwards})")


def raw_rows(world: World, choices: Choices, context: Context) -> Operation | None:
    """RunSQL that fills a table of its own."""
    if not world.raw_tables:
        return None
    name, number = choices.of(world.raw_tables), world.number()
    forwards, backwards = f"INSERT INTO {name} VALUES ({number})", f"DELETE FROM {name} WHERE a = {number}"
    one_way = choices.chance(100 if context.free and choices.chance(30) else _ONE_WAY // 3)
    return Operation(
        f"migrations.RunSQL('{forwards}')" if one_way else f"migrations.RunSQL('{forwards}', '{backwards}')",
        moves_rows=True,
    )


def raw_index(world: World, choices: Choices, context: Context) -> Operation | None:
    """RunSQL that makes what no model knows of: an index of a model's table."""
    models = [model for model in world.of_app(context.app) if model.concrete()]
    if not models:
        return None
    model = choices.of(models)
    name = f"raw_{world.number('raw')}"
    text = f'CREATE INDEX {name} ON "{model.table_name}" (id)'
    return Operation(f"migrations.RunSQL('{text}', 'DROP INDEX {name}')")


def raw_update(world: World, choices: Choices, context: Context) -> Operation | None:
    """RunSQL that changes every row, exactly back again."""
    found = [
        (model, column)
        for model in world.of_app(context.app)
        for column in model.columns.values()
        if column.kind in NUMBERS and not column.unique and column.name not in model.bound()
    ]
    if not found:
        return None
    model, column = choices.of(found)
    text = f'UPDATE "{model.table_name}" SET {column.name} = {column.name}'
    return Operation(f"migrations.RunSQL('{text} + 1', '{text} - 1')", moves_rows=True)


def _insert_one(
    world: World,
    choices: Choices,
    model: Model,
    lines: list[str],
    made: list[tuple[Model, str | None]],
    *,
    hidden: bool = False,
    depth: int = 0,
) -> bool:
    values: list[str] = []
    nulls: list[Column] = []
    for column in model.concrete():
        value = _value(world, choices, model, column, lines, made, depth=depth)
        if value is None and not column.null:
            return False
        if value is None:
            nulls.append(column)
        values.append(f"{column.name}{'' if column.is_value else '_id'}={value}")
    for column in nulls:
        column.has_nulls = True
    key = None if hidden and model.key.endswith("AutoField") else key_literal(model, world.number())
    if key is None:
        model.hidden_rows += 1
    else:
        model.rows.append(key)
        values.append(f"pk={key}")
    made.append((model, key))
    lines.append(f"{_manager(model)}.create({', '.join(values)})")
    return True


def _value(
    world: World,
    choices: Choices,
    model: Model,
    column: Column,
    lines: list[str],
    made: list[tuple[Model, str | None]],
    *,
    depth: int,
) -> str | None:
    if column.null and choices.chance(30):
        return None
    target = column.target
    if target is None:
        return literal(column.kind, world.number())
    if target is model or depth >= _DEPTH:
        return None
    if column.unique or not target.rows:
        return target.rows[-1] if _insert_one(world, choices, target, lines, made, depth=depth + 1) else None
    key = choices.of(target.rows)
    column.distinct = column.distinct and not model.count
    return key


def _manager(model: Model) -> str:
    return f"apps.get_model('{model.app}', '{model.name}').objects.using(editor.connection.alias)"


def _each_row(model: Model, column: Column, change: str) -> list[str]:
    return [
        f"for row in {_manager(model)}.exclude({column.name}=None).order_by('pk'):",
        f"    row.{column.name} = row.{column.name} {change}".replace(" [", "["),
        f"    row.save(update_fields=['{column.name}'])",
    ]


def _python(
    world: World, choices: Choices, lines: list[str], undo: list[str], *, one_way: bool, context: Context
) -> Operation:
    number = world.number("function")
    # Code that commits by itself, which only a migration that is in no transaction may have.
    is_durable = not context.atomic and choices.chance(20)
    functions = "".join(
        _function(f"{name}_{number}", body, is_durable=is_durable)
        for name, body in (("forwards", lines), ("backwards", undo or ["pass"]))
    )
    one_way = one_way or choices.chance(30 if context.free else _ONE_WAY // 3)
    arguments = f"forwards_{number}" if one_way else f"forwards_{number}, backwards_{number}"
    if not context.atomic and not is_durable and choices.chance(30):
        arguments += ", atomic=True"
    return Operation(f"migrations.RunPython({arguments})", functions, moves_rows=True)


def _function(name: str, body: Sequence[str], *, is_durable: bool) -> str:
    block = ["with transaction.atomic(editor.connection.alias, durable=True):", *(f"    {line}" for line in body)]
    lines = "".join(f"    {line}\n" for line in (block if is_durable else body))
    return f"def {name}(apps, editor):\n{lines}\n\n"

"""Operations on indexes, constraints, names of tables and options; each returns None where it is not possible."""

from tests.support.generated.columns import KINDS, NUMBERS, TEXTS
from tests.support.generated.world import Choices, Column, Context, Model, Operation, World
from tests.support.histories import Vendor

__all__ = [
    "add_constraint",
    "add_index",
    "alter_options",
    "alter_table",
    "alter_together",
    "remove_constraint",
    "remove_index",
    "rename_index",
]


def add_index(world: World, choices: Choices, context: Context) -> Operation | None:
    """AddIndex: plain, descending, partial or of an expression; concurrently where that is possible."""
    model = _model(world, choices, context)
    names = _fields(model, choices) if model else ()
    if model is None or not names:
        return None
    name = f"index_{world.number('index')}"
    columns = [model.columns[each] for each in names]
    match choices.below(4):
        case 1:
            what = f"fields={['-' + each for each in names]}"
        case 2 if columns[0].kind in NUMBERS:
            what = f"fields={[*names]}, condition=models.Q({names[0]}__gt=3)"
        case 3 if columns[0].kind in TEXTS:
            names = names[:1]
            what = f"Upper('{names[0]}')"
        case _:
            what = f"fields={[*names]}"
    model.indexes[name] = names
    index = f"models.Index({what}, name='{name}')"
    if _concurrently(choices, context):
        return Operation(f"AddIndexConcurrently('{model.name}', {index})", alone=True)
    return Operation(f"migrations.AddIndex('{model.name}', {index})")


def remove_index(world: World, choices: Choices, context: Context) -> Operation | None:
    """RemoveIndex."""
    found = _named(world, context, constraints=False)
    if not found:
        return None
    model, name = choices.of(found)
    del model.indexes[name]
    if _concurrently(choices, context):
        return Operation(f"RemoveIndexConcurrently('{model.name}', '{name}')", alone=True)
    return Operation(f"migrations.RemoveIndex('{model.name}', '{name}')")


def rename_index(world: World, choices: Choices, context: Context) -> Operation | None:
    """RenameIndex."""
    found = _named(world, context, constraints=False)
    if not found:
        return None
    model, old = choices.of(found)
    new = f"index_{world.number('index')}"
    model.indexes[new] = model.indexes.pop(old)
    return Operation(f"migrations.RenameIndex('{model.name}', new_name='{new}', old_name='{old}')")


def add_constraint(world: World, choices: Choices, context: Context) -> Operation | None:
    """AddConstraint: a check, or what is unique always, conditionally or at the end of a transaction."""
    model = _model(world, choices, context)
    if model is None:
        return None
    name = f"rule_{world.number('constraint')}"
    numbers = [column.name for column in model.columns.values() if column.kind in NUMBERS]
    if numbers and choices.chance(40):
        field = choices.of(numbers)
        model.constraints[name] = (field,)
        check = f"models.CheckConstraint(condition=models.Q({field}__gte=0), name='{name}')"
        if context.vendor is Vendor.POSTGRESQL and choices.chance(20):
            return Operation(f"AddConstraintNotValid('{model.name}', {check})")
        return Operation(f"migrations.AddConstraint('{model.name}', {check})")
    names = _distinct_fields(model, choices)
    if not names:
        return None
    model.constraints[name] = names
    extra = ""
    match choices.below(3):
        case 1 if model.columns[names[0]].kind in NUMBERS:
            extra = f", condition=models.Q({names[0]}__gt=3)"
        case 2 if context.vendor is Vendor.POSTGRESQL:
            extra = ", deferrable=models.Deferrable.DEFERRED"
    return Operation(
        f"migrations.AddConstraint('{model.name}', models.UniqueConstraint(fields={[*names]}{extra}, name='{name}'))"
    )


def remove_constraint(world: World, choices: Choices, context: Context) -> Operation | None:
    """RemoveConstraint."""
    found = _named(world, context, constraints=True)
    if not found:
        return None
    model, name = choices.of(found)
    del model.constraints[name]
    return Operation(f"migrations.RemoveConstraint('{model.name}', '{name}')")


def alter_together(world: World, choices: Choices, context: Context) -> Operation | None:
    """AlterUniqueTogether, there and back."""
    model = _model(world, choices, context)
    if model is None:
        return None
    names = () if model.together else _distinct_fields(model, choices)
    if len(names) < 2 and not model.together:
        return None
    model.together = names
    return Operation(
        f"migrations.AlterUniqueTogether('{model.name}', {{{repr(names) if names else ''}}})"
        if names
        else f"migrations.AlterUniqueTogether('{model.name}', set())"
    )


def alter_table(world: World, choices: Choices, context: Context) -> Operation | None:
    """AlterModelTable: another name, or the one by default."""
    model = _model(world, choices, context)
    if model is None:
        return None
    name = f"{'Odd Table ' if choices.chance(30) else 'plain_table_'}{world.number('table')}"
    model.table = None if model.table and choices.chance(50) else name
    return Operation(f"migrations.AlterModelTable('{model.name}', {model.table!r})")


def alter_options(world: World, choices: Choices, context: Context) -> Operation | None:
    """What changes no table, or its comment alone."""
    model = _model(world, choices, context)
    if model is None:
        return None
    if choices.chance(40):
        return Operation(f"migrations.AlterModelTableComment('{model.name}', 'What {world.number('text')}')")
    return Operation(f"migrations.AlterModelOptions('{model.name}', {{'verbose_name': 'what'}})")


def _model(world: World, choices: Choices, context: Context) -> Model | None:
    models = world.of_app(context.app)
    return choices.of(models) if models else None


def _concurrently(choices: Choices, context: Context) -> bool:
    return context.vendor is Vendor.POSTGRESQL and not context.atomic and choices.chance(60)


def _named(world: World, context: Context, *, constraints: bool) -> list[tuple[Model, str]]:
    return [
        (model, name)
        for model in world.of_app(context.app)
        for name in (model.constraints if constraints else model.indexes)
    ]


def _indexable(column: Column) -> bool:
    return column.is_concrete and (not column.is_value or KINDS[column.kind].unique)


def _fields(model: Model, choices: Choices) -> tuple[str, ...]:
    names = [column.name for column in model.columns.values() if _indexable(column)]
    if not names:
        return ()
    first, second = choices.of(names), choices.of(names)
    return (first,) if first == second else (first, second)


def _distinct_fields(model: Model, choices: Choices) -> tuple[str, ...]:
    names = [
        column.name
        for column in model.columns.values()
        if column.is_value and column.distinct and KINDS[column.kind].unique and KINDS[column.kind].distinct
    ]
    if not names:
        return ()
    others = [column.name for column in model.columns.values() if _indexable(column)]
    first, second = choices.of(names), choices.of(others)
    return (first,) if first == second else (first, second)

"""Operations on models and their fields; each returns None where it is not possible."""

from tests.support.generated.columns import ALTERATIONS, KEYS, KINDS, field_source
from tests.support.generated.world import Choices, Column, Context, Model, Operation, Relation, World

__all__ = [
    "add_field",
    "add_many",
    "add_relation",
    "add_through",
    "alter_field",
    "alter_key",
    "create_model",
    "delete_model",
    "remove_field",
    "rename_field",
    "rename_model",
]

_LOSSY = 25  # per cent of what has no way back is tried where that matters


def create_model(world: World, choices: Choices, context: Context) -> Operation | None:
    """CreateModel, with a few fields."""
    model = Model(context.app, f"Thing{world.number('model')}")
    model.key = choices.of(KEYS) if choices.chance(30) else KEYS[0]
    for _ in range(1 + choices.below(3)):
        column = _new_column(world, choices)
        model.columns[column.name] = column
    if world.models and choices.chance(40):
        column = _new_relation(world, choices, choices.of(world.models))
        model.columns[column.name] = column
    return _created(world, model, choices)


def delete_model(world: World, choices: Choices, context: Context) -> Operation | None:
    """DeleteModel, where nothing refers to it."""
    models = [model for model in world.of_app(context.app) if not any(_foreign(world, model))]
    if not models:
        return None
    model = choices.of(models)
    if not context.free and not choices.chance(_LOSSY):
        return None
    world.models.remove(model)
    return Operation(f"migrations.DeleteModel('{model.name}')")


def rename_model(world: World, choices: Choices, context: Context) -> Operation | None:
    """RenameModel."""
    models = world.of_app(context.app)
    if not models:
        return None
    model = choices.of(models)
    old, model.name = model.name, f"Thing{world.number('model')}"
    return Operation(f"migrations.RenameModel('{old}', '{model.name}')")


def add_field(world: World, choices: Choices, context: Context) -> Operation | None:
    """AddField of a value."""
    models = world.of_app(context.app)
    if not models:
        return None
    model = choices.of(models)
    column = _new_column(world, choices)
    return _added(model, column, choices)


def add_relation(world: World, choices: Choices, context: Context) -> Operation | None:
    """AddField of a foreign key, within the app or to another."""
    models = world.of_app(context.app)
    if not models:
        return None
    model = choices.of(models)
    column = _new_relation(world, choices, choices.of(world.models))
    column.null = column.null or bool(model.count) or column.target is model
    return _added(model, column, choices)


def add_many(world: World, choices: Choices, context: Context) -> Operation | None:
    """AddField of a many-to-many relation with a table of its own."""
    models = world.of_app(context.app)
    if not models:
        return None
    model = choices.of(models)
    column = Column(f"many{world.number('column')}", Relation.MANY, target=choices.of(world.models))
    model.columns[column.name] = column
    return Operation(f"migrations.AddField('{model.name}', '{column.name}', {field_source(column)})")


def add_through(world: World, choices: Choices, context: Context) -> Operation | None:
    """AddField of a many-to-many relation through a model that has two foreign keys of its own."""
    models = world.of_app(context.app)
    if not models:
        return None
    model, target = choices.of(models), choices.of(world.models)
    through = Model(context.app, f"Thing{world.number('model')}")
    if target is model:
        return None
    for end in (model, target):
        column = Column(f"end{world.number('column')}", Relation.FOREIGN_KEY, target=end, db_index=True, distinct=False)
        through.columns[column.name] = column
    many = Column(f"many{world.number('column')}", Relation.MANY, target=target, through=through)
    created = _created(world, through, choices)
    model.columns[many.name] = many
    return Operation(
        f"{created.source},\n        migrations.AddField('{model.name}', '{many.name}', {field_source(many)})"
    )


def remove_field(world: World, choices: Choices, context: Context) -> Operation | None:
    """RemoveField of what no index, constraint or relation needs."""
    model, column = _pick(world, choices, context, allow_many=True)
    if model is None or column is None or (not context.free and not choices.chance(_LOSSY)):
        return None
    if len(model.concrete()) < 2 and column.is_concrete:
        return None
    del model.columns[column.name]
    return Operation(f"migrations.RemoveField('{model.name}', '{column.name}')")


def rename_field(world: World, choices: Choices, context: Context) -> Operation | None:
    """RenameField."""
    model, column = _pick(world, choices, context, allow_many=True)
    if model is None or column is None:
        return None
    old, column.name = column.name, f"c{world.number('column')}"
    model.columns = {each.name: each for each in model.columns.values()}
    return Operation(f"migrations.RenameField('{model.name}', '{old}', '{column.name}')")


def alter_field(world: World, choices: Choices, context: Context) -> Operation | None:
    """AlterField of one property."""
    model, column = _pick(world, choices, context, allow_many=False, allow_bound=True)
    if model is None or column is None:
        return None
    what = choices.of(_alterations(model, column, lossy=context.free or choices.chance(_LOSSY)))
    match what:
        case "kind":
            column.kind = choices.of([kind for kind in ALTERATIONS[column.kind] if kind != column.kind])
        case "filled":
            column.distinct = column.distinct and not column.has_nulls
            column.null = column.has_nulls = False
            column.default = True
        case "one to one":
            column.kind, column.unique, column.db_index = Relation.ONE_TO_ONE, True, True
        case _:
            setattr(column, what, not getattr(column, what))
    if column.unique:
        column.default = column.db_default = False
    extra = {}
    if what == "filled" and choices.chance(50):
        extra["preserve_default"] = "False"
    arguments = "".join(f", {key}={value}" for key, value in extra.items())
    source = f"migrations.AlterField('{model.name}', '{column.name}', {field_source(column)}{arguments})"
    if extra:
        column.default = False
    return Operation(source)


def alter_key(world: World, choices: Choices, context: Context) -> Operation | None:
    """AlterField of a primary key from AutoField to BigAutoField, as projects do that upgrade."""
    models = [model for model in world.of_app(context.app) if model.key == "AutoField"]
    if not models:
        return None
    model = choices.of(models)
    model.key = "BigAutoField"
    return Operation(f"migrations.AlterField('{model.name}', 'id', models.BigAutoField(primary_key=True))")


def _alterations(model: Model, column: Column, *, lossy: bool) -> list[str]:
    possible = ["db_index"] if column.kind != Relation.ONE_TO_ONE and not column.unique else []
    if not column.null:
        possible += ["null"]
    elif not column.has_nulls:
        possible += ["null"] if not column.default else []
    elif column.is_value and not column.unique and lossy:
        possible += ["filled"]
    if column.is_value:
        kind = KINDS[column.kind]
        if not column.unique:
            possible += ["default", "db_default", "choices"] if kind.distinct else ["default"]
        if column.kind in ALTERATIONS and column.name not in model.bound():
            possible += ["kind", "kind", "kind"]
        if column.unique or (kind.unique and kind.distinct and column.distinct and not column.default):
            possible += ["unique"] if not column.db_default else []
    else:
        possible += ["db_constraint"]
        if column.kind == Relation.FOREIGN_KEY and column.distinct:
            possible += ["one to one"]
    return possible or ["choices"]


def _pick(
    world: World, choices: Choices, context: Context, *, allow_many: bool, allow_bound: bool = False
) -> tuple[Model | None, Column | None]:
    found = [
        (model, column)
        for model in world.of_app(context.app)
        for column in model.columns.values()
        if (column.is_concrete or allow_many)
        and (allow_bound or column.name not in model.bound())
        and not (column.target is not None and world.is_through(model))
    ]
    return choices.of(found) if found else (None, None)


def _foreign(world: World, model: Model) -> list[Model]:
    return [owner for owner, column in world.referring(model) if owner is not model or column.through is model]


def _new_column(world: World, choices: Choices) -> Column:
    name = choices.of(list(KINDS))
    kind = KINDS[name]
    column = Column(f"c{world.number('column')}", name, distinct=kind.distinct)
    column.null = choices.chance(40)
    column.db_index = choices.chance(15) and kind.unique
    column.unique = choices.chance(15) and kind.unique and kind.distinct
    if not column.unique:
        column.default = choices.chance(30)
        column.db_default = choices.chance(15) and kind.distinct
        column.choices = choices.chance(10) and kind.distinct
    return column


def _new_relation(world: World, choices: Choices, target: Model) -> Column:
    kind = Relation.ONE_TO_ONE if choices.chance(20) else Relation.FOREIGN_KEY
    column = Column(f"to{world.number('column')}", kind, target=target, db_index=not choices.chance(15))
    column.null = choices.chance(50)
    column.unique = kind == Relation.ONE_TO_ONE
    column.db_constraint = not choices.chance(10)
    return column


def _added(model: Model, column: Column, choices: Choices) -> Operation:
    if model.count:
        if not column.null and not column.db_default:
            column.default = column.is_value
        column.null = column.null or column.unique
        if column.unique:
            column.default = column.db_default = False
        column.has_nulls = column.null and not column.default and not column.db_default
        column.distinct = column.distinct and (column.has_nulls or model.count < 2)
    model.columns[column.name] = column
    source = field_source(column)
    preserve = ""
    if column.default and choices.chance(30):
        preserve = ", preserve_default=False"
        column.default = False
    return Operation(f"migrations.AddField('{model.name}', '{column.name}', {source}{preserve})")


def _created(world: World, model: Model, choices: Choices) -> Operation:
    options = []
    if choices.chance(15):
        model.table = f"{'Odd Table ' if choices.chance(50) else 'plain_table_'}{world.number('table')}"
        options += [f"'db_table': '{model.table}'"]
    if choices.chance(10):
        options += ["'ordering': ['-pk']"]
    world.models.append(model)
    length = "max_length=20, " if model.key == "CharField" else ""
    fields = [f"('id', models.{model.key}({length}primary_key=True))"]
    fields += [f"('{column.name}', {field_source(column)})" for column in model.columns.values()]
    inner = ", ".join(fields)
    return Operation(f"migrations.CreateModel('{model.name}', [{inner}], {{{', '.join(options)}}})")

"""What an operation means for the release that is still running, told from the project's state alone."""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from django.db.migrations import operations
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState
from django.db.models import NOT_PROVIDED, Field, ManyToManyField

from smooth_migrations.conversions import length_of

__all__ = ["Effects", "effects"]

ModelKey = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Effects:
    """What one or more operations do.

    Args:
        destructive: descriptions of what takes something from the running release.
        unsafe: descriptions of what it may trip over.
        locks: the locks taken on tables that exist already, in words.
    """

    destructive: tuple[str, ...] = ()
    unsafe: tuple[str, ...] = ()
    locks: tuple[str, ...] = ()

    def __add__(self, other: "Effects") -> "Effects":
        return Effects(self.destructive + other.destructive, self.unsafe + other.unsafe, self.locks + other.locks)


def effects(operation: Operation, app_label: str, state: ProjectState, existing: AbstractSet[ModelKey]) -> Effects:
    """Tell what an operation does to tables that existed before the run.

    Args:
        operation: what will run.
        app_label: of its migration.
        state: the project's state before it; not changed.
        existing: the models that existed before the run. What the run itself makes is nobody else's yet.
    """
    if isinstance(operation, operations.SeparateDatabaseAndState):
        found = Effects()
        for part in operation.database_operations:
            found += effects(part, app_label, state, existing)
        return found
    model = _model(operation)
    if model is None or (app_label, model) not in existing:
        return Effects()
    text = operation.describe()
    table = f"{app_label}.{model}"
    lock = (f"ACCESS EXCLUSIVE on {table}: {text}",)
    if isinstance(operation, operations.RemoveIndex | operations.AddIndex):
        return Effects(locks=(f"SHARE on {table}: {text}",))
    reasons = list(_losses(operation, app_label, state))
    if reasons:
        return Effects(destructive=tuple(f"{text} ({reason})" for reason in reasons), locks=lock)
    warnings = tuple(f"{text} ({reason})" for reason in _warnings(operation))
    harmless = operations.AlterModelOptions | operations.AlterModelManagers
    return Effects(unsafe=warnings, locks=() if isinstance(operation, harmless) else lock)


def _model(operation: Operation) -> str | None:
    if isinstance(operation, operations.RenameModel):
        return operation.old_name_lower
    name = getattr(operation, "model_name_lower", None) or getattr(operation, "name_lower", None)
    if name is None:
        name = getattr(operation, "model_name", None)
    return name.lower() if isinstance(name, str) else None


def _losses(operation: Operation, app_label: str, state: ProjectState) -> Iterator[str]:
    if isinstance(operation, operations.RemoveField):
        yield "the running release still reads the column"
    elif isinstance(operation, operations.DeleteModel):
        yield "the running release still uses the table"
    elif isinstance(operation, operations.RenameField | operations.RenameModel | operations.AlterModelTable):
        yield "the running release knows the old name"
    elif isinstance(operation, operations.AlterField):
        old = state.models[app_label, operation.model_name_lower].fields[operation.name]
        yield from _narrowings(old, operation.field)


def _narrowings(old: "Field[object, object]", new: "Field[object, object]") -> Iterator[str]:
    if isinstance(old, ManyToManyField) or isinstance(new, ManyToManyField):
        return
    if old.null and not new.null:
        yield "the running release may write NULL"
    if new.unique and not old.unique:
        yield "the running release may write duplicates"
    old_type, new_type = old.get_internal_type(), new.get_internal_type()
    if old_type != new_type:
        yield f"its type changes from {old_type} to {new_type}"
    elif (was := length_of(old)) and (is_now := length_of(new)) and is_now < was:
        yield f"it narrows from {was} to {is_now}"


def _warnings(operation: Operation) -> Iterator[str]:
    if isinstance(operation, operations.AddField) and not isinstance(operation.field, ManyToManyField):
        field = operation.field
        if not field.null and getattr(field, "db_default", NOT_PROVIDED) is NOT_PROVIDED:
            yield "NOT NULL without a database default: the running release cannot insert rows until it is replaced"
    elif isinstance(operation, operations.AddConstraint):
        yield "the running release may violate the constraint"

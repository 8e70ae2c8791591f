"""Look at migrations as they would be deployed, without a database."""

from collections.abc import Collection, Iterator
from operator import attrgetter
from typing import TYPE_CHECKING

from django.db import router
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations import Migration
from django.db.migrations.operations import AddField, RenameModel
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState
from django.db.models import NOT_PROVIDED

from smooth_migrations.classification import effects
from smooth_migrations.lint.chosen import CannotLint, Deployed, choose
from smooth_migrations.lint.presumed import PresumedTables, without_server
from smooth_migrations.lint.rules import RULES
from smooth_migrations.lint.source import Source
from smooth_migrations.lint.subject import Step, Subject
from smooth_migrations.losses import irreversible_operations
from smooth_migrations.operations.fields import clone
from smooth_migrations.protocol.linting import LintedMigration, LintFinding, LintReport
from smooth_migrations.splitting import Walk

if TYPE_CHECKING:
    from smooth_migrations.operations import CannotSplit, Split

__all__ = ["lint"]


def lint(
    connection: BaseDatabaseWrapper,
    *,
    apps: Collection[str] = (),
    since: str | None = None,
    everything: bool = False,
    expands: bool = True,
) -> LintReport:
    """Say what migrations would do to the release that is still running, and what they should not do unsaid.

    Takes no lock and changes nothing. No database is needed: one that can be read says what is pending.

    Args:
        connection: the database's that they are for. Its server and its routers decide what is split.
        apps: the labels of the apps that are looked at; all where there are none.
        since: look at what was changed or added since this revision of Git.
        everything: look at every migration, each as a deploy by itself.
        expands: whether what the release still running cannot live with is held back.

    Raises:
        CannotLint: Git cannot tell what has changed, the settings name no server, or migrations cannot be imported.
    """
    if connection.vendor == "unknown":
        raise CannotLint(
            f"the settings name no server for {connection.alias}, whose kind decides what is split",
            hint="name its ENGINE in DATABASES; it need not be there",
        )
    chosen = choose(connection, apps=apps, since=since, everything=everything)
    connection = connection if chosen.is_read else without_server(connection)
    project = ProjectState(real_apps=set(chosen.unmigrated))
    migrations: list[LintedMigration] = []
    findings: list[LintFinding] = []
    for deploy in chosen.deploys:
        for subject in _subjects(deploy, project, connection, expands=expands):
            migrations.append(_told(subject))
            findings += sorted({*_found(subject)}, key=attrgetter("file", "line", "code", "message"))
    return LintReport(
        connection.alias, chosen.basis, tuple(migrations), tuple(findings), tuple(rule.told() for rule in RULES)
    )


def _subjects(
    deploy: Deployed, project: ProjectState, connection: BaseDatabaseWrapper, *, expands: bool
) -> Iterator[Subject]:
    """Yield what is looked at of a deploy; moves the project's state past all of it."""
    if not deploy.told:
        for migration in deploy.migrations:
            migration.mutate_state(project, preserve=False)
        return
    way = _Way(project, connection, expands=expands)
    for migration in deploy.migrations:
        source = Source.of(migration)
        steps = tuple(way.past(migration, source))
        if migration in deploy.told:
            yield Subject(migration, source, connection.vendor, expands, steps)


class _Way:
    """A way through the operations of a deploy.

    Args:
        project: the project's state, which is moved along.
        connection: the database's. Nothing is asked of it but what it can do.
        expands: whether what the release still running cannot live with is held back.
    """

    def __init__(self, project: ProjectState, connection: BaseDatabaseWrapper, *, expands: bool) -> None:
        self._project = project
        self._connection = connection
        self._existing = {*_with_tables(project, connection)}
        self._refusals: list[tuple[Migration, CannotSplit]] = []
        self._walk = Walk(connection, project.clone(), {})
        self._walk.begin(self._refusals, expands=expands)
        self._tables = PresumedTables(connection, project, self._existing)

    def past(self, migration: Migration, source: Source) -> Iterator[Step]:
        """Go past a migration, and yield its operations, but for those that leave the database as it is."""
        folds = self._walk.folds(migration)
        for number, operation in enumerate(migration.operations):
            if number in folds:
                self._walk.past_state(folds[number], migration.app_label)
                operation.state_forwards(migration.app_label, self._project)
            else:
                yield self._past(migration, number, source.line_of(number))

    def _past(self, migration: Migration, number: int, line: int) -> Step:
        label, operation = migration.app_label, migration.operations[number]
        before, existing = self._project.clone(), frozenset(self._existing)
        alone = _alone(operation, migration)
        halves = self._halves(migration, number, operation)
        operation.state_forwards(label, self._project)
        lost: tuple[str, ...] = ()
        if halves is None:
            lost = tuple(irreversible_operations(alone, before.clone(), self._tables))
        else:
            self._tables.follow(operation, label, self._project)
        if isinstance(operation, RenameModel) and (label, operation.old_name_lower) in existing:
            self._existing.add((label, operation.new_name_lower))
        return Step(
            app_label=label,
            operation=operation,
            line=line,
            before=before,
            existing=existing,
            split=halves,
            refusal=next((error for _, error in self._refusals), None),
            effects=effects(operation, label, before, existing),
            lost=lost,
            connection=self._connection,
        )

    def _halves(self, migration: Migration, number: int, operation: Operation) -> "Split | None":
        # One by one, so that it is known which of them is refused.
        self._refusals.clear()
        try:
            return self._walk.past(migration, number, operation)[0]
        except Exception:
            if not isinstance(operation, AddField) or not callable(operation.field.default):
                raise
            # A default that asks the database for its value, which is not known here.
            field = clone(operation.field, default=NOT_PROVIDED)
            unknown = AddField(operation.model_name, operation.name, field, operation.preserve_default)
            return self._walk.past(migration, number, unknown)[0]


def _with_tables(project: ProjectState, connection: BaseDatabaseWrapper) -> Iterator[tuple[str, str]]:
    """Yield the models that have a table in this database, by what they and the routers say."""
    for (app_label, name), model in project.models.items():
        is_own = model.options.get("managed", True) and not model.options.get("proxy")
        if is_own and router.allow_migrate(connection.alias, app_label, model_name=name):
            yield app_label, name


def _alone(operation: Operation, migration: Migration) -> Migration:
    alone = Migration(migration.name, migration.app_label)
    alone.operations = [operation]  # type: ignore[misc]  # as each migration has its own
    return alone


def _told(subject: Subject) -> LintedMigration:
    steps = subject.steps
    split = [(step.operation.describe(), step.split) for step in steps if step.split is not None]
    return LintedMigration(
        migration=_name(subject),
        file=str(subject.source.path),
        atomic=bool(subject.migration.atomic),
        expand=tuple(part.describe() for step in steps for part in step.expand),
        contract=tuple(halves.description for _, halves in split),
        locks=tuple(dict.fromkeys(lock for step in steps for lock in step.locks)),
        rewrites=tuple(text for step in steps for text in step.rewrites),
        irreversible=tuple(text for step in steps for text in step.lost),
        old_release=tuple(f"{text}: {halves.explain().old_release}" for text, halves in split),
        new_release=tuple(f"{text}: {halves.explain().new_release}" for text, halves in split),
    )


def _found(subject: Subject) -> Iterator[LintFinding]:
    allowed = subject.source.allowed
    for rule in RULES:
        for found in rule.look(subject):
            yield LintFinding(
                code=rule.code,
                level=rule.level,
                migration=_name(subject),
                file=str(found.file or subject.source.path),
                line=found.line,
                message=found.message,
                hint=found.hint,
                allowed=allowed.get(rule.code),
            )


def _name(subject: Subject) -> str:
    return f"{subject.migration.app_label}.{subject.migration.name}"

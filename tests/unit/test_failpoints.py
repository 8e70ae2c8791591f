"""Where the crash points stand: around every write to a journal and every statement that changes a database's fate.

The source of both packages is read, not run. Every call is looked for that sends a statement which does not only read
(one whose text cannot be told counts as one), ends a transaction, writes rows by the ORM, or tells a worker what to do.
Each must stand within a `with passing(...)`, or in a function that is named nowhere but within one, or be excepted.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from smooth_migrations import protocol
from smooth_migrations.protocol.failpoints import COORDINATOR, WORKER
from smooth_orchestrator.journal import RecordKind

_ROOT: Final = Path(__file__).parents[2]
_PACKAGES: Final = ("smooth_migrations", "smooth_orchestrator")

# Methods that hand SQL to a server. What they are called on has no type here, so they go by their names.
_SENDS: Final = frozenset({"execute", "executemany", "executescript", "copy", "fetch", "fetchrow", "fetchval"})
# Those that end a transaction, or make one that ends with its block.
_ENDS: Final = frozenset(
    {"commit", "rollback", "set_autocommit", "atomic", "Atomic", "transaction", "__enter__", "__exit__"}
)
_WRITES_ROWS: Final = frozenset(
    {"add_index", "bulk_create", "bulk_update", "create_model", "delete", "delete_model", "save", "update_or_create"}
)
_TELLS: Final = "worker.call"  # what a coordinator has a worker do
# Objects whose methods of these names are the packages' own, and are read themselves.
_OWN: Final = frozenset({"_moves", "_transaction", "aliases", "call", "earlier", "execution", "held", "self"})
_READS: Final = re.compile(
    r"\s*(SELECT|SHOW|SET|PRAGMA|BEGIN|SAVEPOINT|RELEASE|LOCK TABLE|ROLLBACK TO|"
    r"WITH(?!.*\b(INSERT|UPDATE|DELETE|MERGE)\b))\b",
    re.IGNORECASE | re.DOTALL,
)
# Functions that do something all the same.
_ACTS: Final = re.compile(r"\bpg_(terminate|cancel)_backend\b", re.IGNORECASE)
_UNKNOWN: Final = "?"
_FUNCTION: Final = ast.FunctionDef | ast.AsyncFunctionDef

_READS_ONLY: Final = "sends what only reads"
_TURN_OVER: Final = "ends what stood open before the call began, in which nothing is ours"
_FENCE: Final = "holds the lease's row for as long as a look at it takes, and changes nothing"
_SECOND: Final = "a second session, which only reads"
_NOT_OURS: Final = "what a project's code does itself, as it would without us"
_NO_TABLE: Final = "makes tables that say nothing before something is written into them"
_HEARTBEAT: Final = "a heartbeat: whose turn it is stays as it is"
_QUEUE: Final = "the queue carries what has crash points where it is asked and where it is done"
_RECORD: Final = "the crash point `record` stands from the one to the other"
_WITHIN = "a part of a migration, or of a contract half, as Django's own operations are"
_EXCEPTED: Final[Mapping[tuple[str, str], str]] = {
    ("smooth_migrations/admin.py", "get_queryset"): _READS_ONLY,
    ("smooth_migrations/aliases.py", "_join"): "opens a transaction in which nothing is written yet",
    ("smooth_migrations/backfill/filling.py", "_analyze"): "statistics, which change nothing",
    ("smooth_migrations/backfill/throttle.py", "_ask"): _READS_ONLY,
    ("smooth_migrations/call.py", "run"): _TURN_OVER,
    ("smooth_migrations/fingerprint/postgresql.py", "describe"): _READS_ONLY,
    ("smooth_migrations/fingerprint/postgresql.py", "undone"): "rolls back its own settings, to a savepoint of its own",
    ("smooth_migrations/interruption.py", "_kill_query"): "a statement that is broken off fails like any other",
    ("smooth_migrations/lease/heartbeat.py", "_beat"): _HEARTBEAT,
    ("smooth_migrations/lease/row.py", "create"): _NO_TABLE,
    ("smooth_migrations/lease/row.py", "read_or_insert"): "the row of a lease that nobody holds",
    ("smooth_migrations/lease/row.py", "renew"): _HEARTBEAT,
    ("smooth_migrations/lease/row.py", "hand_over"): _HEARTBEAT,
    ("smooth_migrations/lease/row.py", "_fetch"): _READS_ONLY,
    ("smooth_migrations/lease/session_lock.py", "_ask"): "a lock of the session alone, which changes nothing",
    ("smooth_migrations/locks/taking.py", "take_together"): "locks alone, which go with the transaction",
    ("smooth_migrations/losses.py", "have_rows"): _READS_ONLY,
    ("smooth_migrations/marker.py", "make_table"): _NO_TABLE,
    ("smooth_migrations/measuring.py", "watching"): _READS_ONLY,
    ("smooth_migrations/measuring.py", "_rows"): _READS_ONLY,
    ("smooth_migrations/operations/followed.py", "database_backwards"): _WITHIN,
    ("smooth_migrations/operations/followed.py", "database_forwards"): _WITHIN,
    ("smooth_migrations/operations/followed.py", "_make_trigger"): _WITHIN,
    ("smooth_migrations/operations/followed.py", "_drop_trigger"): _WITHIN,
    ("smooth_migrations/operations/old_columns.py", "database_backwards"): _WITHIN,
    ("smooth_migrations/operations/old_columns.py", "database_forwards"): _WITHIN,
    ("smooth_migrations/operations/old_columns.py", "_make"): _WITHIN,
    ("smooth_migrations/operations/old_columns.py", "_index"): _WITHIN,
    ("smooth_migrations/operations/old_columns.py", "_keep_equal"): _WITHIN,
    ("smooth_migrations/operations/old_columns.py", "_drop"): _WITHIN,
    ("smooth_migrations/operations/old_names.py", "database_backwards"): _WITHIN,
    ("smooth_migrations/operations/old_names.py", "_make_view"): _WITHIN,
    ("smooth_migrations/operations/old_types.py", "database_backwards"): _WITHIN,
    ("smooth_migrations/operations/old_types.py", "database_forwards"): _WITHIN,
    ("smooth_migrations/operations/old_types.py", "_grant"): _WITHIN,
    ("smooth_migrations/operations/retyped.py", "_replace"): _WITHIN,
    ("smooth_migrations/operations/retyped.py", "_name_indexes"): _WITHIN,
    ("smooth_migrations/operations/shadow.py", "let_go"): _WITHIN,
    ("smooth_migrations/operations/shadow.py", "rows_of"): _READS_ONLY,
    ("smooth_migrations/questions.py", "answer_of"): _READS_ONLY,
    ("smooth_migrations/questions.py", "told"): _READS_ONLY,
    ("smooth_migrations/received.py", "take_received"): _READS_ONLY,
    ("smooth_migrations/replay/recording.py", "add_index"): _WITHIN,
    ("smooth_migrations/replay/recording.py", "execute"): _WITHIN,
    ("smooth_migrations/replay/replaying.py", "_backwards"): _WITHIN,
    ("smooth_migrations/replay/replaying.py", "_run_part"): _WITHIN,
    ("smooth_migrations/sending.py", "send_together"): _WITHIN,
    ("smooth_migrations/session.py", "limited_transaction"): "what runs in it stands within a crash point, or reads",
    ("smooth_migrations/turn.py", "begin"): _TURN_OVER,
    ("smooth_migrations/undo/emptiness.py", "_things"): _READS_ONLY,
    ("smooth_migrations/undo/fencing.py", "fenced"): _FENCE,
    ("smooth_migrations/undo/operations.py", "finish"): _RECORD,
    ("smooth_migrations/undo/records.py", "begin"): _RECORD,
    ("smooth_migrations/undo/journal.py", "_create_table"): _NO_TABLE,
    ("smooth_migrations/undo/rows/column.py", "take_column"): _READS_ONLY,
    ("smooth_migrations/undo/rows/mysql.py", "_rows"): _READS_ONLY,
    ("smooth_migrations/undo/rows/postgresql.py", "prepare"): _SECOND,
    ("smooth_migrations/undo/rows/postgresql.py", "_rows"): _READS_ONLY,
    ("smooth_migrations/undo/rows/recorder.py", "_changes"): _SECOND,
    ("smooth_migrations/undo/rows/recorder.py", "_expect"): "around one statement of a project's code and its `note`",
    ("smooth_migrations/undo/rows/recorder.py", "_second"): _SECOND,
    ("smooth_migrations/unapplying.py", "_render"): "a registry of models, and no rows",
    ("smooth_migrations/undo/rows/recorder.py", "committing"): _NOT_OURS,
    ("smooth_migrations/undo/rows/recorder.py", "rolling_back"): _NOT_OURS,
    ("smooth_migrations/undo/rows/recorder.py", "setting_autocommit"): _NOT_OURS,
    ("smooth_migrations/undo/transaction.py", "_read"): _READS_ONLY,
    ("smooth_migrations/worker/loop.py", "_fetch"): _READS_ONLY,
    ("smooth_migrations/worker/physical.py", "physical_of"): _READS_ONLY,
    ("smooth_migrations/worker/undoing.py", "_lose"): "around `discard`, which has a point of its own",
    ("smooth_orchestrator/glances.py", "answers_alike"): _READS_ONLY,
    ("smooth_orchestrator/journal/postgres.py", "renew"): _HEARTBEAT,
    ("smooth_orchestrator/journal/postgres.py", "_look_for_tables"): _NO_TABLE,
    ("smooth_orchestrator/journal/sqlite.py", "renew"): _HEARTBEAT,
    ("smooth_orchestrator/journal/sqlite.py", "_prepare"): _NO_TABLE,
    ("smooth_orchestrator/journal/sqlite.py", "_query"): _READS_ONLY,
    ("smooth_orchestrator/linting.py", "lint"): _READS_ONLY,
    ("smooth_orchestrator/reads.py", "read"): _READS_ONLY,
    ("smooth_orchestrator/remote/machine.py", "_drain"): _QUEUE,
    ("smooth_orchestrator/remote/machine.py", "_enrol"): _QUEUE,
    ("smooth_orchestrator/remote/post.py", "begin"): _QUEUE,
    ("smooth_orchestrator/remote/post.py", "end"): _QUEUE,
    ("smooth_orchestrator/remote/post.py", "_send"): _QUEUE,
    ("smooth_orchestrator/remote/post.py", "_renew"): _HEARTBEAT,
    ("smooth_orchestrator/remote/queue.py", "defer"): _QUEUE,
    ("smooth_orchestrator/remote/queue.py", "tidy"): _QUEUE,
    ("smooth_orchestrator/remote/queue.py", "withdraw"): _QUEUE,
    ("smooth_orchestrator/remote/queue.py", "_make_tables"): _NO_TABLE,
    ("smooth_orchestrator/remote/served.py", "_call"): _QUEUE,
    ("smooth_orchestrator/remote/served.py", "_check"): _READS_ONLY,
    ("smooth_orchestrator/resting.py", "_renew"): _HEARTBEAT,
    ("smooth_orchestrator/resting.py", "_through_worker"): _HEARTBEAT,
    ("smooth_orchestrator/transport/copies.py", "copied"): "a worker that holds nothing, and another one like it",
}


@dataclass(frozen=True)
class _Site:
    """Where something stands.

    Args:
        place: the module's path, and the function.
        line: in the module.
        what: the call, or the name.
        is_within: whether a point is around it.
        is_own: whether a name can only be one of the same module: it is private, or defined there.
    """

    place: tuple[str, str]
    line: int
    what: str
    is_within: bool
    is_own: bool

    def __str__(self) -> str:
        return f"{self.place[0]}:{self.line} {self.place[1]}: {self.what}"


class _Source(ast.NodeVisitor):
    """What one module does and names, and whether that is within a point."""

    def __init__(self, module: str, text: str) -> None:
        tree = ast.parse(text)
        self._module = module
        self._functions: list[str] = []
        self._points = 0
        self._known = _assigned(tree.body)
        self._defined = {node.name for node in ast.walk(tree) if isinstance(node, _FUNCTION)}
        self.acts: list[_Site] = []
        self.names: dict[str, list[_Site]] = defaultdict(list)
        self.points: list[str] = []
        self.visit(tree)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        known = self._known
        self._known = {**known, **_assigned(node.body)}
        self._functions.append(node.name)
        self.generic_visit(node)
        self._functions.pop()
        self._known = known

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self.visit_FunctionDef(node)

    def visit_With(self, node: ast.With | ast.AsyncWith) -> None:
        # What is entered after a point is within it; what is entered before it is not.
        outside = self._points
        for item in node.items:
            self.visit(item)
            self._points += _called(item.context_expr) == "passing"
        for part in node.body:
            self.visit(part)
        self._points = outside

    def visit_AsyncWith(self, node: ast.AsyncWith) -> None:
        self.visit_With(node)

    def visit_Call(self, node: ast.Call) -> None:
        name = _called(node)
        is_method = isinstance(node.func, ast.Attribute)
        owner = _last(node.func.value) if isinstance(node.func, ast.Attribute) else ""
        if name in {"passing", "reach"} and node.args:
            self.points.append(self._text(node.args[0]))
        elif owner in _OWN:
            pass
        elif name in _SENDS and is_method and node.args:
            text = self._text(node.args[0])
            if not _READS.match(text) or _ACTS.search(text):
                self._act(node, f"{name}({' '.join(text.split())[:70]!r})")
        elif name in _ENDS or (name in _WRITES_ROWS and is_method) or f"{owner}.{name}" == _TELLS:
            self._act(node, ast.unparse(node)[:70])
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        self.names[node.id].append(self._site(node, node.id, is_own=node.id in self._defined))

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.names[node.attr].append(self._site(node, ast.unparse(node), is_own=node.attr.startswith("_")))
        self.generic_visit(node)

    def _act(self, node: ast.expr, what: str) -> None:
        self.acts.append(self._site(node, what))

    def _site(self, node: ast.expr, what: str, *, is_own: bool = False) -> _Site:
        function = self._functions[-1] if self._functions else ""
        return _Site((self._module, function), node.lineno, what, is_within=self._points > 0, is_own=is_own)

    def _text(self, node: ast.expr) -> str:
        """Return what is known of a text, with a sign for what is not."""
        parts: Sequence[ast.expr] = ()
        match node:
            case ast.Constant(value=str(text)):
                return text
            case ast.JoinedStr(values=values):
                parts = values
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                parts = (left, right)
            case ast.FormattedValue(value=value) | ast.IfExp(body=value):
                parts = (value,)
            case ast.Call(func=ast.Attribute(value=value, attr="format" | "replace")):
                parts = (value,)
            case ast.Name(id=name) if name in self._known:
                parts = (self._known[name],)
        return "".join(self._text(part) for part in parts) if parts else _UNKNOWN


def _assigned(body: Sequence[ast.stmt]) -> dict[str, ast.expr]:
    """Return what names stand for that are assigned to once."""
    found: dict[str, list[ast.expr]] = defaultdict(list)
    for statement in body:
        for node in ast.walk(statement):
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    found[_last(target)].append(node.value)
            elif isinstance(node, ast.AnnAssign) and node.value is not None:
                found[_last(node.target)].append(node.value)
    return {name: values[0] for name, values in found.items() if len(values) == 1}


def _last(node: ast.expr) -> str:
    """Return the last part of a dotted name."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _called(node: ast.expr) -> str:
    return _last(node.func) if isinstance(node, ast.Call) else ""


def _bare(
    sources: Iterable[_Source], excepted: Mapping[tuple[str, str], str] | None = None
) -> tuple[list[_Site], set[tuple[str, str]]]:
    """Return what is done without a point around it, and which exceptions kept something from being that."""
    sources, excepted = [*sources], excepted or {}
    named: dict[str, list[_Site]] = defaultdict(list)
    for source in sources:
        for name, sites in source.names.items():
            named[name] += sites
    acts = [act for source in sources for act in source.acts]
    covered: set[tuple[str, str]] = set()
    used: set[tuple[str, str]] = set()

    def is_covered(site: _Site) -> bool:
        if not site.is_within and site.place in excepted:
            used.add(site.place)
        return site.is_within or site.place in covered | excepted.keys()

    left = {act.place for act in acts if not is_covered(act)}
    while left:
        callers = {
            place: [site for site in named[place[1]] if site.place[0] == place[0] or not site.is_own] for place in left
        }
        found = {place for place, sites in callers.items() if sites and all([*map(is_covered, sites)])}
        above = {site.place for sites in callers.values() for site in sites if not is_covered(site)}
        if not found and above <= left:
            break
        covered |= found
        left = (left | above) - covered
    return [act for act in acts if not is_covered(act)], used


@cache
def _sources() -> list[_Source]:
    return [
        _Source(str(path.relative_to(_ROOT)), path.read_text(encoding="utf-8"))
        for package in _PACKAGES
        for path in sorted((_ROOT / package).rglob("*.py"))
    ]


def test_whatever_changes_a_fate_stands_within_a_crash_point() -> None:
    bare, used = _bare(_sources(), _EXCEPTED)
    assert [str(site) for site in bare] == []
    assert used == _EXCEPTED.keys()


@pytest.mark.parametrize(
    "statement",
    [
        "cursor.execute('PREPARE TRANSACTION ' + name)",
        "await connection.execute(f'COMMIT PREPARED {name}')",
        "await connection.execute(f\"{'COMMIT' if commits else 'ROLLBACK'} PREPARED {name}\")",
        "cursor.execute(f'DELETE FROM {_TABLE} WHERE run_id = %s', [run_id])",
        "cursor.execute('INSERT INTO smooth_migrations_journal VALUES (1)')",
        "cursor.executemany(unheard, [])",
        "cursor.execute('WITH gone AS (DELETE FROM demo RETURNING *) SELECT * FROM gone')",
        "cursor.execute('SELECT pg_terminate_backend(pid) FROM pg_stat_activity')",
        "connection.commit()",
        "connection.rollback()",
        "connection.set_autocommit(True)",
        "connection.cursor().execute(unheard)",
        "model.objects.using(alias).filter(pk__in=keys).delete()",
        "block.__exit__(None, None, None)",
        "with transaction.atomic(alias): write()",
        "with transaction.atomic(alias), passing('apply'): write()",
        "row.save(using=alias)",
        "await worker.call(command)",
    ],
)
def test_what_would_change_a_fate_is_found(statement: str) -> None:
    source = _Source("module.py", f"async def added():\n    {statement}\n")
    assert [site.line for site in _bare([source])[0]] == [2]


@pytest.mark.parametrize(
    "lines",
    [
        "with passing('apply'):\n        connection.commit()",
        "with passing('apply'), transaction.atomic(alias):\n        write()",
        "cursor.execute('SELECT 1')",
        "sql = 'SELECT 1 FROM demo'\n    cursor.execute(sql)",
    ],
)
def test_what_stands_within_a_point_or_only_reads_is_not(lines: str) -> None:
    assert _bare([_Source("module.py", f"def added():\n    {lines}\n")])[0] == []


def test_a_function_is_covered_where_it_is_named_only_within_points() -> None:
    helper = "def ended():\n    connection.commit()\n\ndef one():\n    with passing('commit'):\n        ended()\n"
    assert _bare([_Source("module.py", helper)])[0] == []
    elsewhere = _Source("other.py", "def two():\n    persist(ended)\n")
    assert [site.line for site in _bare([_Source("module.py", helper), elsewhere])[0]] == [2]


def test_every_record_and_every_command_has_its_points() -> None:
    commands = {
        kind.type
        for kind in (getattr(protocol, name) for name in protocol.__all__)
        if isinstance(kind, type) and issubclass(kind, protocol.Command) and kind is not protocol.Command
    }
    assert protocol.Apply.type in commands
    # What these bring about has points of its own, in the worker; or they change no database.
    others = (protocol.Fetch, protocol.Cancel, protocol.Stop, protocol.AskCode, protocol.Copy, protocol.Lint)
    asked = commands - {each.type for each in others}
    names = {*(f"journal.{kind}" for kind in RecordKind), *(f"ask.{command}" for command in asked)}
    assert names <= {point.rpartition(".")[0] for point in COORDINATOR}


def test_the_points_that_are_listed_are_those_that_stand_in_the_source() -> None:
    listed = {point.rpartition(".")[0] for point in (*COORDINATOR, *WORKER)}
    told = {point for source in _sources() for point in source.points} - {f"{_UNKNOWN}.before", f"{_UNKNOWN}.after"}
    literal = {point.removesuffix(".before").removesuffix(".after") for point in told if _UNKNOWN not in point}
    made = {name for name in listed if name.startswith(("journal.", "ask.")) or name == "rollback_prepared"}
    assert literal | made == listed

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

import pytest

from smooth_orchestrator.errors import Mistake
from smooth_orchestrator.journal import RunSummary
from smooth_orchestrator.render import print_report, print_runs
from smooth_orchestrator.report import HALTED, DatabaseOutcome, DatabaseReport, Report, RunError, RunOutcome
from smooth_orchestrator.settling import told_how_to_settle
from smooth_orchestrator.sqlstates import in_words

STARTED = datetime(2026, 3, 1, 12, tzinfo=UTC)
ERROR = RunError("IntegrityError", "a row is in the way", "23505", "orders.0007_total", "remove it", detail="(5)")


class Terminal(StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


def _database(name: str, outcome: DatabaseOutcome = DatabaseOutcome.COMMITTED) -> DatabaseReport:
    return DatabaseReport(
        database=name,
        project="shop",
        alias=name,
        vendor="postgresql",
        phase="all",
        tier="held_open",
        outcome=outcome,
        applied=("orders.0007_total",) if outcome is DatabaseOutcome.COMMITTED else (),
    )


REPORT = Report(
    command="deploy",
    deploy="shop",
    run_id="r1",
    outcome=RunOutcome.COMMITTED,
    started_at=STARTED,
    duration_ms=812.4,
    databases=(_database("primary"), _database("analytics", DatabaseOutcome.UNCHANGED)),
)
FAILED = replace(
    REPORT,
    outcome=RunOutcome.ROLLED_BACK,
    databases=(
        _database("primary", DatabaseOutcome.ROLLED_BACK),
        replace(_database("shard", DatabaseOutcome.FAILED), error=ERROR),
    ),
    error=ERROR,
)


def _text(report: Report) -> str:
    stream = StringIO()
    print_report(report, stream)
    return stream.getvalue()


def test_a_failure_is_told_cause_first_then_the_state_then_a_table() -> None:
    lines = [line.rstrip() for line in _text(FAILED).splitlines()]

    assert lines == [
        "database shard, migration orders.0007_total, SQLSTATE 23505 unique violation",
        "  a row is in the way",
        "  (5)",
        "  hint: remove it",
        "",
        "Rolled back: every database is as it was before.",
        "deploy of shop, run r1: rolled_back, exit 1, 812 ms",
        "",
        "database  phase  tier       outcome",
        "primary   all    held_open  rolled_back",
        "shard     all    held_open  failed",
    ]


def test_a_failure_names_the_operation_its_place_and_who_had_the_lock() -> None:
    error = replace(
        ERROR,
        operation="Create index x",
        place=str(Path.cwd() / "shop/migrations/0007_total.py:12"),
        blockers=("pid 4711 (psql)", "pid 4712"),
    )

    assert [line.rstrip() for line in _text(replace(FAILED, error=error)).splitlines()][1:7] == [
        "  a row is in the way",
        "  (5)",
        "  operation: Create index x",
        "  at: shop/migrations/0007_total.py:12",
        "  lock held by: pid 4711 (psql), pid 4712",
        "  hint: remove it",
    ]
    assert Report.from_dict(replace(FAILED, error=error).to_dict()).error == error


@pytest.mark.parametrize(
    ("sqlstate", "words"),
    [
        ("23505", "23505 unique violation"),
        ("55P03", "55P03 lock not available"),
        ("40P01", "40P01 deadlock detected"),
        ("HY000", "HY000"),
        ("", ""),
    ],
)
def test_a_sqlstate_is_followed_by_its_name_where_it_has_one(sqlstate: str, words: str) -> None:
    assert in_words(sqlstate) == words


def test_a_success_begins_with_the_state() -> None:
    assert _text(REPORT).splitlines()[0] == "Done: 1 database changed; 1 database had nothing to do."


def test_further_errors_and_mistakes_follow_the_first() -> None:
    further = RunError("OperationalError", "gone", database="primary")
    text = _text(replace(FAILED, errors=(further, Mistake("phases[1]", "no such database", "did you mean b?"))))

    assert text.index("a row is in the way") < text.index("database primary\n  gone") < text.index("phases[1]")
    assert "  hint: did you mean b?" in text


@pytest.mark.parametrize("outcome", RunOutcome)
def test_every_outcome_is_told_in_a_sentence_of_its_own(outcome: RunOutcome) -> None:
    sentences = {_text(replace(REPORT, outcome=each, databases=())).splitlines()[0] for each in RunOutcome}

    assert _text(replace(REPORT, outcome=outcome, databases=())).splitlines()[0].endswith(".")
    assert len(sentences) == len(RunOutcome)


def test_a_halted_deploy_names_what_stays_changed() -> None:
    databases = (_database("primary"), _database("shard", DatabaseOutcome.FAILED))

    text = _text(replace(FAILED, outcome=RunOutcome.HALTED, databases=databases))
    assert "Halted: changed and left so: primary; every other database is as it was before." in text


def test_a_deploy_that_halted_is_not_called_unsettled() -> None:
    databases = (_database("primary"), _database("shard", DatabaseOutcome.UNCHANGED))
    errors = (RunError("halted", "it ended before its last phase"),)

    text = _text(replace(FAILED, outcome=RunOutcome.NEEDS_OPERATOR, databases=databases, errors=errors))
    assert "Halted: changed and left so: primary; every other database is as it was before." in text
    assert "not settled" not in text


def test_an_operator_is_told_which_databases_are_not_settled() -> None:
    databases = (_database("primary"), _database("shard", DatabaseOutcome.IN_DOUBT))

    text = _text(replace(REPORT, outcome=RunOutcome.NEEDS_OPERATOR, databases=databases))
    assert "not settled: shard." in text


def test_away_from_a_terminal_text_is_plain_and_never_wrapped() -> None:
    long = "x" * 300
    text = _text(replace(REPORT, databases=(_database(long), _database(f"{long}y"))))

    assert text.isascii()
    assert "\x1b" not in text
    assert sum(long in line for line in text.splitlines()) == 2


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_a_terminal_is_coloured_unless_no_color_is_set(
    monkeypatch: pytest.MonkeyPatch, no_color: str, *, coloured: bool
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    print_report(FAILED, terminal)

    assert ("\x1b[" in terminal.getvalue()) is coloured


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    for name, value in {"NO_COLOR": "1", "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}.items():
        monkeypatch.setenv(name, value)
    return Terminal()


def test_a_thousand_databases_are_a_screen_on_a_terminal_and_all_of_them_elsewhere(screen: Terminal) -> None:
    names = [f"shards:shard_{number}" for number in range(1000)]
    databases = [_database(name, DatabaseOutcome.ROLLED_BACK) for name in names]
    databases[700] = _database(names[700], DatabaseOutcome.FAILED)
    databases[900] = _database(names[900], DatabaseOutcome.IN_DOUBT)
    errors = tuple(RunError("OperationalError", "gone\n" * 100, database=name) for name in names)
    many = replace(FAILED, outcome=RunOutcome.NEEDS_OPERATOR, databases=tuple(databases), errors=errors)
    print_report(many, screen, Path("deploy.toml"))
    lines = [line.rstrip() for line in screen.getvalue().splitlines()]

    assert len(lines) <= 24
    assert "An operator is needed; not settled: shards:shard_700, shards:shard_900." in lines
    rows = [line.split()[0] for line in lines if line.startswith("shards:shard_")]
    assert rows == [names[900], names[700]]
    assert any(line.startswith("1 in doubt, 1 failed, 998 rolled back; ") for line in lines)
    assert sum(line.startswith("shards:shard_") for line in _text(many).splitlines()) == 1000


def test_a_success_of_many_databases_is_counted_on_a_terminal(screen: Terminal) -> None:
    databases = tuple(_database(f"shard_{number}") for number in range(200))
    print_report(replace(REPORT, databases=databases), screen)

    assert "200 committed; " in screen.getvalue()
    assert "shard_7" not in screen.getvalue()


@pytest.mark.parametrize(
    ("report", "command"),
    [
        pytest.param(FAILED, "rehearse", id="a migration failed"),
        pytest.param(replace(FAILED, command="finalise"), "finalise", id="a finalise failed"),
        pytest.param(replace(FAILED, error=replace(ERROR, blockers=("pid 1",))), "deploy", id="a lock was not free"),
        pytest.param(replace(FAILED, error=RunError("Interrupted", "by SIGINT")), "deploy", id="interrupted"),
        pytest.param(replace(REPORT, outcome=RunOutcome.REFUSED), "check", id="refused"),
        pytest.param(replace(REPORT, outcome=RunOutcome.LOCKED), "status", id="locked"),
        pytest.param(
            replace(REPORT, databases=(replace(_database("a"), contract_pending=("x",)),)), "finalise", id="held back"
        ),
        pytest.param(REPORT, None, id="done"),
    ],
)
def test_a_terminal_is_told_the_next_command_to_paste(screen: Terminal, report: Report, command: str | None) -> None:
    print_report(report, screen, Path("my plans/deploy.toml"))
    pasted = [line.strip() for line in screen.getvalue().splitlines() if line.startswith("  smooth-orchestrate ")]

    assert pasted == ([f"smooth-orchestrate {command} 'my plans/deploy.toml'"] if command else [])
    assert "smooth-orchestrate" not in _text(report)


_ROLLBACK = replace(FAILED, command="rollback", takes_back="r 0")
_TAKEN = replace(REPORT, outcome=RunOutcome.REFUSED, error=RunError("run_id_taken", "the run r1 was halted"))


@pytest.mark.parametrize(
    ("report", "words", "command"),
    [
        pytest.param(
            _ROLLBACK,
            ["my plan", "--run", "r0", "--discard-data"],
            "rollback 'my plan' --run r0 --discard-data",
            id="all",
        ),
        pytest.param(_ROLLBACK, [], "rollback 'a plan' --run 'r 0'", id="of a run that was taken back"),
        pytest.param(replace(_ROLLBACK, takes_back=None), [], "rollback 'a plan'", id="none"),
        pytest.param(replace(_ROLLBACK, command="recover"), [], "recover 'a plan'", id="another command"),
        pytest.param(FAILED, ["a plan", "--no-replay"], "rehearse 'a plan'", id="the next is another command"),
        pytest.param(
            _TAKEN,
            ["a plan", "--run-id", "r1", "--no-replay"],
            "deploy 'a plan' --no-replay",
            id="a run id that is taken",
        ),
        pytest.param(_TAKEN, ["--run-id=r1", "a plan"], "deploy 'a plan'", id="a run id that is taken, with ="),
        pytest.param(_TAKEN, [], "deploy 'a plan'", id="a run id that is taken, as the journal tells"),
    ],
)
def test_a_command_that_is_tried_again_is_given_as_it_was(
    screen: Terminal, report: Report, words: list[str], command: str
) -> None:
    print_report(report, screen, Path("a plan"), words)

    assert f"\n  smooth-orchestrate {command}\n" in screen.getvalue()


@pytest.mark.parametrize("outcome", [RunOutcome.HALTED, RunOutcome.NEEDS_OPERATOR])
def test_a_run_that_halted_and_was_taken_back_since_names_no_command(screen: Terminal, outcome: RunOutcome) -> None:
    plan = Path("deploy.toml")
    since = (("rollback", "r2"),)
    halted = replace(FAILED, outcome=outcome, errors=(RunError(HALTED, "it ended early"),), since=since)
    told = told_how_to_settle(halted, plan)
    print_report(told, screen, plan)

    assert "\nThis run was taken back since, by the run r2.\n" in screen.getvalue()
    assert "smooth-orchestrate" not in screen.getvalue()
    assert "runbooks" not in screen.getvalue()
    assert Report.from_dict(told.to_dict()).since == since


@pytest.mark.parametrize("outcome", [RunOutcome.HALTED, RunOutcome.NEEDS_OPERATOR])
def test_a_run_that_halted_ends_with_the_commands_to_go_on_and_to_go_back(
    screen: Terminal, outcome: RunOutcome
) -> None:
    halted = replace(FAILED, outcome=outcome, errors=(RunError(HALTED, "it ended before its last phase"),))
    plan = Path("my plans/deploy.toml")
    print_report(told_how_to_settle(halted, plan), screen, plan)

    assert [line.strip() for line in screen.getvalue().splitlines() if line.startswith("  smooth-orchestrate ")] == [
        "smooth-orchestrate deploy 'my plans/deploy.toml'",
        "smooth-orchestrate rollback 'my plans/deploy.toml' --run r1",
    ]


def test_a_message_cannot_drive_a_terminal_or_be_taken_for_markup() -> None:
    text = _text(replace(FAILED, error=RunError("x", "\x1b[2J [bold]array[1]:smile:")))

    assert r"\x1b[2J [bold]array[1]:smile:" in text


def test_runs_are_a_table_of_one_line_each() -> None:
    stream = StringIO()
    print_runs(
        [
            RunSummary("r3", "shop", "deploy", "d", STARTED),
            RunSummary(
                "r2",
                "shop",
                "deploy",
                "d",
                STARTED,
                STARTED + timedelta(seconds=2),
                "rolled_back",
                1,
                {"message": "a\nb"},
            ),
        ],
        stream,
    )

    assert [line.rstrip() for line in stream.getvalue().splitlines()] == [
        "run  command  started                  took   outcome      exit  error",
        "r3   deploy   2026-03-01 12:00:00 UTC         unfinished",
        "r2   deploy   2026-03-01 12:00:00 UTC  2.0 s  rolled_back  1     a",
    ]


def _run(number: int, day: int, outcome: str | None, message: str = "") -> RunSummary:
    started = STARTED.replace(day=day, minute=number % 60)
    error = {"message": message} if message else None
    return RunSummary(f"r{number}", "shop", "finalise", "d", started, started, outcome, error=error)


def test_runs_are_told_by_days_on_a_terminal_and_those_alike_once(screen: Terminal) -> None:
    runs = [
        _run(9, 2, None),
        *(_run(number, 2, "refused", "a session") for number in (8, 7, 6)),
        _run(5, 2, "refused", "another one"),
        _run(4, 1, "refused", "another one"),
    ]
    print_runs(runs, screen)

    assert [line.split() for line in screen.getvalue().splitlines()] == [
        ["day", "UTC", "run", "command", "took", "outcome", "error"],
        ["2026-03-02", "12:09", "r9", "finalise", "0", "ms", "unfinished"],
        ["12:08", "r8", "+2", "finalise", "0", "ms", "refused", "a", "session"],
        ["12:05", "r5", "finalise", "0", "ms", "refused", "another", "one"],
        ["2026-03-01", "12:04", "r4", "finalise", "0", "ms", "refused", "another", "one"],
    ]


@pytest.mark.parametrize(("columns", "shown"), [("90", "a message a message…"), ("75", "")])
def test_an_error_of_a_run_never_takes_a_second_line_of_a_terminal(
    screen: Terminal, monkeypatch: pytest.MonkeyPatch, columns: str, shown: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    print_runs([replace(_run(1, 1, "refused", "a message " * 50), run_id="20260301T120000-00000000")], screen)

    _, *lines = screen.getvalue().splitlines()
    assert [line.rstrip().partition("refused")[2].strip() for line in lines] == [shown]


def test_a_thousand_runs_are_a_screen_on_a_terminal_and_all_of_them_elsewhere(screen: Terminal) -> None:
    runs = [_run(number, 1, "refused", f"reason {number % 2}") for number in range(1000)]
    elsewhere = StringIO()
    for stream in (screen, elsewhere):
        print_runs(runs, stream)

    lines = screen.getvalue().splitlines()
    assert len(lines) < 24
    assert lines[-1].rstrip() == "and 980 more; `smooth-orchestrate runs PLAN | less` has all of them"
    assert len(elsewhere.getvalue().splitlines()) == 1001


def test_no_runs_are_said_to_be_none() -> None:
    stream = StringIO()
    print_runs([], stream)

    assert stream.getvalue() == "No run has been recorded.\n"


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("deploy", "Nothing to do: no database was changed."),
        ("plan", "This is what a deploy would run; no database was changed."),
        ("check", "Ready: nothing refuses this deploy. No database was changed."),
        ("status", "This is where every database stands; no database was changed."),
    ],
)
def test_a_command_that_looks_does_not_say_that_it_did_nothing(command: str, sentence: str) -> None:
    text = _text(replace(REPORT, command=command, outcome=RunOutcome.NOTHING_TO_DO))
    assert text.splitlines()[0].rstrip() == sentence

"""What a person sees of a deploy at a terminal, read from a real one."""

import shlex
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.support.deploys import GATE_WAITS, LAST, Fleet, small_fleet
from tests.support.leases import until
from tests.support.postgres_server import PostgresServer
from tests.support.processes import words_of
from tests.support.runs import SCRIPT
from tests.support.small_migrations import NOTE
from tests.support.terminals import Terminal, terminal, why_no_terminal

ROOT = Path(__file__).parents[2]
HAS_NOTE = "SELECT count(*) FROM information_schema.columns WHERE (table_name, column_name) = ('demo_item', 'note')"
DEPLOY = f"{shlex.quote(SCRIPT)} deploy.toml"
HEAD = ["database", "state", "run", "for", "at"]

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(why_no_terminal() is not None, reason=str(why_no_terminal())),
]


@pytest.fixture
def fleet(tmp_path: Path, pg_server: PostgresServer, second_pg_server: PostgresServer) -> Iterator[Fleet]:
    with small_fleet(tmp_path, pg_server, second_pg_server, {"demo.0002_note": NOTE}) as found:
        yield found


def _replay(count: int, *, how: str = "") -> str:
    script = ROOT / "tests/support/replayed.py"
    return shlex.join(["env", f"PYTHONPATH={ROOT}", sys.executable, str(script), str(count), "end", how])


def _tables(screen: list[str]) -> int:
    return sum(line.split() == HEAD for line in screen)


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (200, 50)], ids=["80x24", "200x50"])
@pytest.mark.parametrize("count", [5, 200])
def test_the_table_fits_its_window_with_what_concerns_a_person_first(
    tmp_path: Path, count: int, columns: int, lines: int
) -> None:
    with terminal(tmp_path, {}, columns, lines) as screen:
        screen.type(_replay(count))
        seen = screen.wait_for(
            "deploy of shop: stopping, after a failure", "idle" if count == 5 else "more like the last"
        )

        assert _tables(seen) == 1
        table = seen[next(number for number, line in enumerate(seen) if line.split() == HEAD) :]
        names = [line.split()[0] for line in table[1:] if line.startswith("shards:")]
        if count == 5:
            assert names == [f"shards:shard_{number}" for number in range(5)]
        else:
            assert names[:3] == ["shards:shard_2", "shards:shard_3", "shards:shard_0"]
            assert any(line.startswith("1 failed, 1 waiting for a lock, 98 at work, 99 to come") for line in seen)
            assert any(line.startswith("and ") and line.endswith(" more like the last") for line in table)
        assert any("lock of pid 4711 (nightly report)" in line for line in table)
        # Nothing of the table has gone off the top, and what is logged as a warning or worse stands above it.
        (tmp_path / "end").touch()
        screen.wait_for_prompt()
        everything = screen.everything()
        assert everything.count("migration.failed") == everything.count("lock.waiting") == 1
        assert "output.captured" not in everything
        assert r"\x1b[2Ja row is in the way" in everything
        assert screen.is_sane()
        assert _tables(screen.everything().splitlines()) == 0


def test_a_database_that_waits_for_a_lock_says_whose_it_is(fleet: Fleet) -> None:
    fleet.plan(deploy='expand_contract = false\nlock_timeout = "60s"')
    with terminal(fleet.directory, fleet.environment, 120) as screen:
        with fleet.last.connect() as holder, holder.transaction():
            holder.execute("SELECT set_config('application_name', 'nightly report', false)")
            holder.execute("SELECT * FROM demo_item")
            screen.type(DEPLOY)
            waiting = f"lock of pid {holder.info.backend_pid} (nightly report): demo.0002_note"
            seen = screen.wait_for(waiting, "phases: canary done, fleet at work")
            assert _tables(seen) == 1
            states = {
                line.split()[0]: line.split()[1] for line in seen if line.startswith(("primary ", "kiosk ", LAST))
            }
            assert states == {"primary": "ready", "kiosk": "ready", LAST: "waiting"}
        screen.wait_for("Done: 3 databases changed.")
        everything = screen.everything()
        assert (everything.count("lock.waiting"), everything.count("migration.applied")) == (1, 0)
        assert screen.is_sane()


def test_a_failure_is_told_above_the_table_and_the_report_stands_where_the_table_was(fleet: Fleet) -> None:
    with fleet.last.connect() as session:
        session.execute("ALTER TABLE demo_item ADD note integer")
    with terminal(fleet.directory, fleet.environment, 120, 50) as screen:
        screen.type(DEPLOY)
        seen = screen.wait_for("Rolled back: every database is as it was before.")
        assert _tables(seen) == 0
        assert sum("migration.failed" in line for line in seen) == 1
        assert "Traceback" not in screen.everything()
        place = next(line for line in seen if line.startswith("  at: project/demo/migrations/0002_note.py:"))
        lines = (fleet.directory / "project/demo/migrations/0002_note.py").read_text().splitlines()
        assert "AddField" in lines[int(place.rpartition(":")[2]) - 1]
        assert f"database {LAST}, migration demo.0002_note, SQLSTATE 42701 duplicate column" in seen
        assert screen.is_sane()


def _end(how: str, screen: Terminal, fleet: Fleet) -> None:
    if how == "Ctrl-C":
        screen.press("C-c")
    elif how == "SIGTERM":
        _program(fleet).terminate()
    else:
        for process in _program(fleet).children():
            if "smooth_migrations.worker" in words_of(process):
                process.kill()


def _program(fleet: Fleet) -> psutil.Process:
    return next(process for process in fleet.processes() if SCRIPT in words_of(process))


@pytest.mark.parametrize("how", ["Ctrl-C", "SIGTERM", "a worker killed"])
def test_whatever_ends_a_deploy_leaves_the_terminal_as_it_was(fleet: Fleet, how: str) -> None:
    fleet.plan(shards=GATE_WAITS)
    with terminal(fleet.directory, fleet.environment, 100, 30) as screen:
        screen.type(DEPLOY)
        screen.wait_for("; gate sh -c", "\nprimary")
        _end(how, screen, fleet)
        screen.wait_for("Rolled back: every database is as it was before.", "run ")
        seen = screen.wait_for_prompt()
        assert _tables(seen) == 0
        assert screen.is_sane()


def test_a_coordinator_that_is_killed_leaves_the_terminal_as_it_was(fleet: Fleet) -> None:
    fleet.plan(shards=GATE_WAITS)
    with terminal(fleet.directory, fleet.environment, 100, 30) as screen:
        screen.type(DEPLOY)
        screen.wait_for("; gate sh -c", "\nprimary")
        _program(fleet).kill()
        screen.wait_for_prompt()
        assert screen.is_sane()


@pytest.mark.parametrize("how", ["exception", "fail"])
def test_an_exception_of_the_command_or_of_the_table_leaves_the_terminal_as_it_was(tmp_path: Path, how: str) -> None:
    with terminal(tmp_path, {}, 200, 50) as screen:
        screen.type(_replay(5, how=how))
        if how == "fail":
            # It is told of as a log line, and those that follow are written as ever.
            screen.wait_for("uncaught exception in progress")
            (tmp_path / "end").touch()
        screen.wait_for_prompt()
        assert screen.is_sane()


def test_a_window_may_become_smaller_and_larger(tmp_path: Path) -> None:
    with terminal(tmp_path, {}, 120, 40) as screen:
        screen.type(_replay(200))
        screen.wait_until(lambda seen: len(seen) == 40 and _tables(seen) == 1)
        for columns, lines in ((60, 30), (60, 12), (200, 50), (100, 24)):
            screen.resize(columns, lines)
            screen.wait_until(partial(_is_one_picture, lines=lines))
        (tmp_path / "end").touch()
        screen.wait_for_prompt()
        assert screen.is_sane()


def _is_one_picture(seen: list[str], lines: int) -> bool:
    counts = [line for line in seen if line.startswith("1 failed, 1 waiting")]
    is_whole = (
        len(seen) == lines
        and " more like the last" in seen[-2]
        and not any(line.startswith(("_per", "tomer")) for line in seen)
    )
    return is_whole and _tables(seen) == len(counts) == 1


def test_a_program_that_was_stopped_draws_below_what_was_written_meanwhile(tmp_path: Path) -> None:
    with terminal(tmp_path, {}, 80, 60) as screen:
        screen.type(_replay(5))
        screen.wait_for("\nshards:shard_4")
        screen.press("C-z")
        screen.wait_for_prompt()
        screen.type("echo mean''while; fg")
        seen = screen.wait_until(lambda seen: _tables(seen[_place("meanwhile", seen) :]) == 1)
        assert "meanwhile" in seen
        (tmp_path / "end").touch()
        screen.wait_for_prompt()
        assert screen.is_sane()


def _place(text: str, seen: list[str]) -> int:
    return seen.index(text) if text in seen else len(seen)


def test_a_terminal_that_takes_nothing_keeps_no_deploy_waiting(fleet: Fleet) -> None:
    fleet.plan(shards=GATE_WAITS)
    decided = len(fleet.decisions())
    with terminal(fleet.directory, fleet.environment, 100, 50) as screen:
        screen.type(f"{DEPLOY} --log-format console")
        screen.wait_for("; gate sh -c")
        screen.press("C-s")
        (fleet.directory / "go").touch()
        until(lambda: len(fleet.decisions()) > decided)
        with fleet.last.connect() as session:
            until(lambda: session.execute(HAS_NOTE).fetchone() == (1,))
        screen.press("C-q")
        screen.wait_for("Done: 3 databases changed.")
        assert screen.is_sane()


def test_a_program_in_the_background_draws_over_nothing(tmp_path: Path) -> None:
    with terminal(tmp_path, {}, 200, 50) as screen:
        screen.type(f"{_replay(5)} &")
        seen = screen.wait_for("migration.failed")
        (tmp_path / "end").touch()
        screen.type("wait")
        screen.wait_for_prompt()
        assert _tables(seen) == _tables(screen.everything().splitlines()) == 0


def test_there_are_plain_lines_alone_where_no_table_is_wanted(fleet: Fleet) -> None:
    fleet.plan(shards=GATE_WAITS)
    with terminal(fleet.directory, fleet.environment, 100, 50) as screen:
        for words in (f"{DEPLOY} --no-progress", f"TERM=dumb {DEPLOY}", f"CI=true {DEPLOY}"):
            screen.clear()
            screen.type(words)
            seen = screen.wait_for("gate.started", "migration.applied")
            assert _tables(seen) == 0
            screen.press("C-c")
            screen.wait_for_prompt()
            assert _tables(screen.everything().splitlines()) == 0


def test_with_json_lines_nothing_else_is_written_beside_them(fleet: Fleet) -> None:
    fleet.plan(shards=GATE_WAITS)
    with terminal(fleet.directory, fleet.environment, 200, 50) as screen:
        screen.type(f"{DEPLOY} --log-format json > report")
        screen.wait_for('"event": "gate.started"')
        screen.press("C-c")
        screen.wait_for_prompt()
        lines = [line for line in screen.everything().splitlines() if line and not line.startswith("type>")]
        assert [line for line in lines if not line.removeprefix("^C").startswith('{"timestamp": ')] == []


def test_every_line_is_written_above_the_table_for_one_who_has_asked_for_them(fleet: Fleet) -> None:
    fleet.plan(shards=GATE_WAITS)
    with terminal(fleet.directory, fleet.environment, 100, 50) as screen:
        screen.type(f"{DEPLOY} --log-format console")
        seen = screen.wait_for("; gate sh -c", "\nprimary", "gate.started", "migration.applied")
        assert max(number for number, line in enumerate(seen) if " info " in line) < _titled(seen)
        screen.press("C-c")
        screen.wait_for_prompt()


def _titled(seen: list[str]) -> int:
    return next(number for number, line in enumerate(seen) if line.startswith("deploy of small: "))


def test_the_last_table_stays_where_the_report_goes_elsewhere(fleet: Fleet) -> None:
    fleet.plan(shards=GATE_WAITS)
    with terminal(fleet.directory, fleet.environment, 100, 50) as screen:
        screen.type(f"{DEPLOY} > report")
        screen.wait_for("; gate sh -c")
        (fleet.directory / "go").touch()
        seen = screen.wait_for_prompt()
        assert any(line.startswith("deploy of small: committed, ") for line in seen)
        assert "3 committed" in seen
        assert (fleet.directory / "report").read_text().startswith("Done: 3 databases changed.")


@pytest.mark.parametrize("no_color", ["", "1"], ids=["colours", "no colours"])
def test_colours_can_be_turned_off(tmp_path: Path, no_color: str) -> None:
    with terminal(tmp_path, {"NO_COLOR": no_color}) as screen:
        screen.type(_replay(5))
        screen.wait_for("\nshards:shard_4")
        assert ("\x1b[" in screen.coloured()) is (not no_color)
        (tmp_path / "end").touch()
        screen.wait_for_prompt()

"""What deploys have in common that make something ready ahead of their transactions."""

from tests.support.deploys import Fleet
from tests.support.small_migrations import failing

__all__ = ["assert_killed_and_recovered", "assert_taken_back_with_a_later_phase", "numbers", "on_servers", "schemas"]


def on_servers(fleet: Fleet, *statements: str) -> None:
    """Run statements on each server; SQLite's file is left as it is."""
    for database in (fleet.first, fleet.last):
        with database.connect() as session:
            for statement in statements:
                session.execute(statement.encode())


def numbers(fleet: Fleet, query: str) -> list[int]:
    """Return what a query gives on each server."""
    found = []
    for database in (fleet.first, fleet.last):
        with database.connect() as session:
            [(number,)] = session.execute(query.encode()).fetchall()
            found.append(number)
    return found


def schemas(fleet: Fleet) -> dict[str, str]:
    """Write every database down, so that two deploys can be compared."""
    return fleet.dumps(sequences=False, applied=False)


def assert_taken_back_with_a_later_phase(fleet: Fleet) -> None:
    """Deploy with a migration behind that fails: nothing of what was made ready stays."""
    (fleet.directory / "project/demo/migrations/0003_kind.py").write_text(failing("1 / 0"))
    before = fleet.dumps(sequences=False)

    outcome = fleet.deploy()

    assert (outcome.exit_code, outcome.report["outcome"]) == (1, "rolled_back"), outcome.stderr
    assert fleet.dumps(sequences=False) == before


def assert_killed_and_recovered(fleet: Fleet, point: str, *, ends: int = 0) -> None:
    """Kill a deploy, or one of its workers: `recover` leaves nothing of it.

    Args:
        fleet: which.
        point: the failpoint; it must be reached.
        ends: the exit code of the deploy that follows.
    """
    before = fleet.dumps(sequences=False)
    fleet.kill("deploy", point)

    recovered = fleet.run("recover")

    assert recovered.exit_code == 0, recovered.stderr
    assert fleet.dumps(sequences=False) == before
    assert fleet.deploy().exit_code == ends

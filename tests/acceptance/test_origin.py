"""Where a report says that an error has come from."""

from pathlib import Path

from tests.support.deploys import LAST, small_fleet
from tests.support.postgres_server import PostgresServer
from tests.support.small_migrations import NOTE, failing


def test_an_error_names_the_operation_and_the_line_of_the_migrations_own_code(
    tmp_path: Path, pg_server: PostgresServer, second_pg_server: PostgresServer
) -> None:
    raising = "raise ValueError('no such kind')"
    release = {"demo.0002_note": NOTE, "demo.0003_kind": failing(raising)}
    with small_fleet(tmp_path, pg_server, second_pg_server, release) as fleet:
        outcome = fleet.deploy()

        error = outcome.report["error"]
        assert (outcome.exit_code, error["message"]) == (1, "no such kind"), outcome.stderr
        assert error["database"] != LAST
        assert error["operation"] == "Raw Python operation"
        file, _, number = error["place"].rpartition(":")
        assert Path(file).read_text().splitlines()[int(number) - 1].strip() == raising
        (failed, *_) = outcome.named("migration.failed")
        assert failed["error"]["place"] == error["place"]

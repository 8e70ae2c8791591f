"""A fleet of each tier before a release, and what an undisturbed deploy makes of it."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.deploys import Fleet, copy_of, small_fleet
from tests.support.fault_proxy import FaultProxy
from tests.support.postgres_server import PostgresServer
from tests.support.small_migrations import KIND, NOTE

__all__ = ["DEPLOY", "TIERS", "Releases", "decided_by_journal", "dumps_of", "proxied", "releases_on"]

DEPLOY = 'expand_contract = false\nsettle_timeout = "2s"'
"""Lines for `[deploy]`: what cannot be settled is soon given up."""

_PLAIN = {"demo.0002_note": NOTE, "demo.0003_kind": KIND}


@dataclass(frozen=True, slots=True)
class _Tier:
    release: Mapping[str, str]
    servers: str


TIERS: Mapping[str, _Tier] = {
    "two_phase": _Tier(_PLAIN, 'atomicity = "two_phase"'),
    "held_open": _Tier(_PLAIN, 'atomicity = "held_open"'),
    # Outside a transaction, so that the databases of PostgreSQL are compensated.
    "compensated": _Tier({**_PLAIN, "demo.0002_note": NOTE.replace("atomic = True", "atomic = False")}, ""),
}
"""What makes the databases on servers move by each tier."""


class Releases:
    """Fleets that are made when they are asked for, and never deployed to themselves.

    Args:
        directory: for their files.
        first: the server of `primary`.
        last: the server of `shards:shard_1`.
    """

    def __init__(self, directory: Path, first: PostgresServer, last: PostgresServer) -> None:
        self._directory = directory
        self._servers = first, last
        self._stack = ExitStack()
        self._made: dict[str, tuple[Fleet, dict[str, str]]] = {}

    def close(self) -> None:
        """Drop their databases."""
        self._stack.close()

    def after(self, tier: str) -> dict[str, str]:
        """Return the dumps of an undisturbed deploy's databases."""
        return self._of(tier)[1]

    @contextmanager
    def copy(self, tier: str, directory: Path) -> Iterator[Fleet]:
        """Copy a tier's fleet, with its plan."""
        with copy_of(self._of(tier)[0], directory) as fleet:
            yield fleet

    def _of(self, tier: str) -> tuple[Fleet, dict[str, str]]:
        if tier not in self._made:
            directory = self._directory / tier
            fleet = self._stack.enter_context(small_fleet(directory / "old", *self._servers, TIERS[tier].release))
            fleet.plan(deploy=DEPLOY, servers=TIERS[tier].servers)
            with copy_of(fleet, directory / "new") as copied:
                outcome = copied.run("deploy")
                assert outcome.exit_code == 0, outcome.stderr
                tiers = {each["database"]: each["tier"] for each in outcome.report["databases"]}
                assert tiers["primary"] == tier
                self._made[tier] = (fleet, dumps_of(copied))
        return self._made[tier]


@contextmanager
def releases_on(directory: Path, first: PostgresServer, last: PostgresServer) -> Iterator[Releases]:
    """Make the fleets' databases on these servers; they are dropped with the block."""
    found = Releases(directory, first, last)
    try:
        yield found
    finally:
        found.close()


def dumps_of(fleet: Fleet) -> dict[str, str]:
    """Write the databases down, without what differs between two deploys."""
    return fleet.dumps(sequences=False, applied=False)


def decided_by_journal(fleet: Fleet) -> None:
    """Let no database be the last resource, whose commit would be the decision: SQLite's is compensated."""
    plan = fleet.directory / "deploy.toml"
    alias = 'alias = "kiosk"\n'
    assert plan.read_text().count(alias) == 1
    plan.write_text(plan.read_text().replace(alias, f'{alias}atomicity = "compensated"\n'))


@contextmanager
def proxied(fleet: Fleet) -> Iterator[tuple[FaultProxy, FaultProxy]]:
    """Let the program reach the fleet's servers through proxies, for `primary` and for `shards:shard_1`."""
    with FaultProxy(fleet.first.server.port) as first, FaultProxy(fleet.last.server.port) as last:
        for alias, proxy in (("default", first), ("shard_1", last)):
            fleet.databases[alias] = {**fleet.databases[alias], "PORT": str(proxy.port)}
        yield first, last

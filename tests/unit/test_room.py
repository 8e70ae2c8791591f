from collections.abc import Iterable

import pytest

from smooth_migrations.protocol import OtherAliases, PendingMigration, TargetReport
from smooth_orchestrator.config import Atomicity, Tier
from smooth_orchestrator.plan import Phase, Target
from smooth_orchestrator.room import ServerRoom, lock_entries_needed, sessions_needed, shortages
from smooth_orchestrator.run import TargetRun

_HELD, _COMPENSATED = Tier.HELD_OPEN, Tier.COMPENSATED
_ROOMY = ServerRoom(free_connections=90, slots=100, locks_per_slot=64, free_prepared=2, locked_objects=10)


def _items(*phases: Iterable[tuple[Tier, int, int]], parallel: int = 4) -> list[TargetRun]:
    """Return targets by phase, each as (tier, entries of everything, entries of the greatest migration)."""
    items = []
    for index, members in enumerate(phases):
        phase = Phase(f"phase {index}", index, (), parallel)
        for number, (tier, whole, each) in enumerate(members):
            found = TargetReport(
                id=1,
                vendor="postgresql",
                server_version="18.0",
                pending=(PendingMigration("demo.0001_item", atomic=tier is _HELD),),
                lock_entries=whole,
                lock_entries_each=each,
            )
            items.append(TargetRun(_target(f"{index}_{number}"), phase, tier, found))
    return items


def _target(name: str) -> Target:
    return Target(
        name=name,
        project="one",
        alias=name,
        vendor="postgresql",
        identity=f"postgresql:localhost:5432/{name}",
        atomicity=Atomicity.AUTO,
        expand_contract=False,
        lock_timeout_ms=2000,
        bind_default=True,
        other_aliases=OtherAliases.REFUSE,
    )


def test_what_is_held_open_adds_up_over_the_phases() -> None:
    items = _items([(_HELD, 100, 40)], [(_HELD, 200, 50), (_HELD, 300, 60)])
    assert lock_entries_needed(items, by_phase=False) == 600


def test_of_phases_that_are_committed_one_by_one_the_greatest_counts() -> None:
    items = _items([(_HELD, 400, 40)], [(_HELD, 100, 50), (_HELD, 200, 60)])
    assert lock_entries_needed(items, by_phase=True) == 400


def test_a_compensated_target_counts_with_its_greatest_migration_and_only_while_it_is_at_work() -> None:
    items = _items([(_COMPENSATED, 900, 80), (_COMPENSATED, 900, 70), (_COMPENSATED, 900, 60)], parallel=2)
    assert lock_entries_needed(items, by_phase=False) == 80 + 70
    before_the_held_ones = [*items, *_items([(_HELD, 100, 90)], parallel=2)]
    assert lock_entries_needed(before_the_held_ones, by_phase=False) == 80 + 70
    assert lock_entries_needed([*items, *_items([(_HELD, 500, 90)], parallel=2)], by_phase=False) == 500


def test_a_compensated_target_works_beside_what_earlier_phases_hold() -> None:
    items = _items([(_HELD, 100, 40)], [(_COMPENSATED, 900, 80)])
    assert lock_entries_needed(items, by_phase=False) == 180
    assert lock_entries_needed(items, by_phase=True) == 100


def test_a_session_watches_each_target_at_work() -> None:
    assert sessions_needed(_items([(_HELD, 1, 1)] * 3, [(_HELD, 1, 1)] * 9, parallel=4)) == 12 + 4
    assert sessions_needed(_items([(_HELD, 1, 1)] * 3, parallel=4)) == 3 + 3
    assert sessions_needed(_items([(_COMPENSATED, 1, 1)] * 9, parallel=4)) == 4 + 4


def test_what_is_prepared_at_once_keeps_no_session() -> None:
    items = _items([(Tier.TWO_PHASE, 1, 1)] * 300, parallel=8)
    assert sessions_needed(items) == 308
    for item in items:
        item.prepares_early = True
    assert sessions_needed(items) == 8 + 8 + 1


@pytest.mark.parametrize(("entries", "is_refused"), [(6390, False), (6391, True)], ids=["exactly enough", "one short"])
def test_a_server_is_refused_where_one_entry_is_missing(entries: int, *, is_refused: bool) -> None:
    assert bool([*shortages("db:5432", _ROOMY, _items([(_HELD, entries, 1)]), by_phase=False)]) is is_refused


def test_a_refusal_names_the_server_the_figures_and_a_setting_with_which_it_would_pass() -> None:
    items = _items([(_HELD, 4000, 1), (_HELD, 4000, 1)])
    (finding,) = shortages("db:5432", _ROOMY, items, by_phase=False)
    assert (finding.place, finding.message, finding.hint) == (
        "db:5432",
        "8000 lock-table entries are needed and about 6390 are free",
        "set max_locks_per_transaction to at least 96 (now 64) and restart the server",
    )
    raised = ServerRoom(free_connections=90, slots=100, locks_per_slot=96, free_prepared=2, locked_objects=10)
    assert [*shortages("db:5432", raised, items, by_phase=False)] == []


def test_more_transactions_than_the_server_can_keep_prepared_are_refused() -> None:
    items = _items([(Tier.TWO_PHASE, 5, 1)] * 3)
    (finding,) = shortages("db:5432", _ROOMY, items, by_phase=False)
    assert finding.message == "3 transactions are to be prepared and 2 slots are free"
    assert finding.hint == "raise max_prepared_transactions and restart the server"
    assert [*shortages("db:5432", _ROOMY, items[:2], by_phase=False)] == []


def test_a_server_without_connections_left_is_refused_too() -> None:
    full = ServerRoom(free_connections=-3, slots=100, locks_per_slot=64, free_prepared=2, locked_objects=7000)
    connections, entries = shortages("db:5432", full, _items([(_HELD, 50, 1)]), by_phase=False)
    assert connections.message == "2 more connections are needed and 0 are free"
    assert entries.message == "50 lock-table entries are needed and about 0 are free"
    assert entries.hint == "set max_locks_per_transaction to at least 96 (now 64) and restart the server"


def test_several_migrations_with_one_commit_count_together_but_for_no_more_than_all() -> None:
    items = _items([(_COMPENSATED, 900, 80), (_COMPENSATED, 100, 70)])
    for item in items:
        item.together = 8
    assert lock_entries_needed(items, by_phase=False) == 640 + 100

import pytest

from benchmarks.clients import Waits


def test_a_stall_counts_as_all_the_statements_that_were_not_sent_meanwhile() -> None:
    waits = Waits()
    waits.add(0.5, [0.25] * 6 + [1.5])

    # The other two would have waited for 1 and for half a second.
    assert [waits.share_s(share) for share in (0.1, 0.75, 0.8, 1)] == [0.25, 0.5, 1.0, 1.5]
    assert waits.longest_s == 1.5


def test_stalls_are_added_up_of_the_client_that_was_worst_off() -> None:
    waits = Waits()
    waits.add(0.5, [0.01, 0.25, 0.25])
    waits.add(0.5, [0.375, 0.01])

    assert waits.stalled_s == pytest.approx(0.5)

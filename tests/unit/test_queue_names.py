"""What the queues of a fleet are called, which a server makes channels of."""

import pytest

from smooth_orchestrator.remote.queue import Place


def _queue(name: str, project: str) -> str:
    return Place("", name, 30.0).of(project)


def test_a_name_that_fits_is_left_as_it_is() -> None:
    assert _queue("shop-migrations", "shop") == "shop-migrations:shop"
    assert len(_queue("n" * 30, "p" * 9)) == 40


@pytest.mark.parametrize(
    ("name", "project"),
    [("n" * 30, "p" * 10), ("n" * 200, "p" * 63), ("é" * 20, "p"), ("migrations", "p" * 63)],
    ids=["by one", "both", "by its bytes", "project"],
)
def test_one_that_does_not_is_shortened_to_what_a_channel_takes(name: str, project: str) -> None:
    assert len(f"procrastinate_queue_v1#{_queue(name, project)}".encode()) <= 63


def test_shortened_ones_are_the_same_for_the_same_and_others_for_others() -> None:
    names = [("n" * 60, "one"), ("n" * 60, "two"), ("n" * 61, "one")]
    queues = [_queue(*each) for each in names]
    assert len({*queues}) == len(names)
    assert queues == [_queue(*each) for each in names]

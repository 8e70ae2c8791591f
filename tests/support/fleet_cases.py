"""Which tests are run over a fleet with `--fleet`, and which are about what a fleet does not have."""

import random
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import PurePath
from typing import Final

__all__ = ["LEFT_OUT", "MATRIX", "chosen", "why_left_out"]

MATRIX: Final = ("test_recovery", "test_random_kills", "test_lost_replies", "test_finalise_kills")
"""The modules of which a sample is taken: what is killed or cut off at every point of its way."""

_SAMPLE: Final = 100

LEFT_OUT: Final[Mapping[str, Sequence[str]]] = {
    "`held_open` is refused by a fleet: a transaction that is held open cannot change machines": (
        r"\[(joined|lost)-",
        r"\[([a-z]+-)?(held|held_open)(-|\])",
        r"-held\]",
        r"test_recovery.py::test_the_next_deploy_settles_a_decided_run_by_itself",
        r"test_interrupted.py::test_an_interrupted_settlement_says",
        r"test_ahead.py::test_what_cannot_be_prepared_is_held_open",
    ),
    "a fleet has no last resource, whose commit would be the decision": (
        r"-(decide|commit)\.(before|after)",
        r"test_recovery.py::test_of_a_lost_journal_and_prepared_transactions_an_operator_decides",
        r"test_rollback.py::test_a_deploy_that_was_cut_off_is_not_followed_by_the_run_before_it",
    ),
    "it is about a file of SQLite, which is nothing for a fleet": (
        r"test_interrupted.py::test_a_long_statement_in_sqlite",
    ),
    "what a lost worker had begun another one begins anew: tests/acceptance/test_machines.py": (
        r"test_interrupted.py::test_a_worker_killed_while_it_migrates",
    ),
    "what a fleet had prepared stands until the next command settles it: tests/acceptance/test_machines.py": (
        r"test_interrupted.py::test_workers_end_and_nothing_is_changed_when_their_coordinator_is_killed",
    ),
    "what is prepared needs no worker, so the loss of one ends nothing": (
        r"test_interrupted.py::test_a_worker_killed_while_a_gate_looks",
    ),
}
"""Patterns of tests that are about the local transport alone, by the reason."""


def why_left_out(node_id: str) -> str | None:
    """Return why a test is none for a fleet; None where it is one. Pure."""
    return next(
        (reason for reason, patterns in LEFT_OUT.items() if any(re.search(each, node_id) for each in patterns)), None
    )


def chosen(node_ids: Collection[str], seed: int) -> frozenset[str]:
    """Return the tests that are run, or skipped and told of: of those of `MATRIX` that are for a fleet a hundred. Pure.

    Args:
        node_ids: what pytest calls all of them.
        seed: which hundred.
    """
    matrix = sorted(each for each in node_ids if _is_of_matrix(each) and why_left_out(each) is None)
    left = random.Random(seed).sample(matrix, max(0, len(matrix) - _SAMPLE))
    return frozenset(node_ids) - frozenset(left)


def _is_of_matrix(node_id: str) -> bool:
    return PurePath(node_id.partition("::")[0]).stem in MATRIX

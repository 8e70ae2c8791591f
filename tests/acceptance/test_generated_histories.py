"""Histories of migrations that nobody wrote, each tried three times: with a failure in it, by stock's command, by ours.

A failure prints its seed and the history, shrunk. The same examples come again with

    pytest --hypothesis-seed=SEED tests/acceptance/test_generated_histories.py

and with `-k` for the one kind of database and the one length of run that failed.
"""

import secrets
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, assume, given, seed, settings

from tests.support.generated.bench import Bench
from tests.support.generated.known import KNOWN
from tests.support.generated.trial import Verdict, try_out
from tests.support.generated_histories import GeneratedHistory, generated_histories
from tests.support.histories import Vendor
from tests.support.sampling import one_in

# Shrinking a failure takes up to five minutes more.
pytestmark = pytest.mark.timeout(3600)

_VENDORS = (Vendor.POSTGRESQL, Vendor.SQLITE)
_EXAMPLES = 250


@pytest.fixture(scope="module", params=_VENDORS)
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Databases of each kind in turn, and a process that migrates them."""
    server = request.getfixturevalue("pg_server") if request.param is Vendor.POSTGRESQL else None
    with Bench(request.param, server, tmp_path_factory.mktemp("generated")) as bench:
        yield bench


@pytest.mark.long
def test_a_generated_history_that_fails_leaves_nothing_and_one_that_succeeds_ends_as_stock_migrate_ends(
    bench: Bench, request: pytest.FixtureRequest
) -> None:
    given_seed = request.config.getoption("--hypothesis-seed", default=None)
    number = secrets.randbits(32) if given_seed is None else int(given_seed)
    counts: Counter[str] = Counter()

    @seed(number)
    @settings(
        max_examples=_EXAMPLES,
        deadline=None,
        database=None,
        derandomize=False,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(generated_histories(bench.vendor))
    def claim(history: GeneratedHistory) -> None:
        trial = try_out(history, bench)
        counts[trial.verdict] += 1
        # What stock's command alone cannot bring about is no history: in SQLite a deferred index of a column that the
        # same migration renames afterwards is one of a string, and no later statement alters its table.
        assume(trial.verdict is not Verdict.NOT_APPLIED)
        counts["refused"] += trial.refused
        assert trial.verdict in {Verdict.HOLDS, Verdict.STOCK_FAILED}, (
            f"seed {number}: pytest --hypothesis-seed={number}\n{trial.problem}"
        )

    claim()

    # What tries nothing proves nothing.
    tried = counts[Verdict.HOLDS] + counts[Verdict.STOCK_FAILED]
    assert tried >= _EXAMPLES
    assert counts["refused"] * 3 < tried
    assert counts[Verdict.STOCK_FAILED] * 10 <= tried
    assert counts[Verdict.NOT_APPLIED] * 10 <= tried


@pytest.mark.parametrize("name", one_in(4, KNOWN))
def test_a_history_that_went_wrong_once_goes_right(bench: Bench, name: str) -> None:
    trial = try_out(KNOWN[name](bench.vendor), bench)

    assert trial.verdict is Verdict.HOLDS, trial.problem

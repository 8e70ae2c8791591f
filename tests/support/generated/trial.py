"""What is claimed of every generated history, tried on one."""

from dataclasses import dataclass
from enum import StrEnum

from tests.support.dump import diff
from tests.support.generated.bench import Bench, Ended
from tests.support.generated_histories import PLANTED, GeneratedHistory
from tests.support.histories import Database

__all__ = ["Trial", "Verdict", "try_out"]


class Verdict(StrEnum):
    """What became of a history."""

    HOLDS = "holds"
    NOT_APPLIED = "not applied"
    STOCK_FAILED = "stock failed"
    CHANGED = "changed by a failure"
    WRONG_FAILURE = "another failure than the planted one"
    OTHER_RESULT = "another result than stock's"


@dataclass(frozen=True, slots=True)
class Trial:
    """The outcome of one history.

    Args:
        verdict: what became of it.
        refused: whether our command would not run it.
        problem: what a person must read; empty where all is well.
        signature: the same in short.
    """

    verdict: Verdict
    refused: bool = False
    problem: str = ""
    signature: str = ""


def try_out(history: GeneratedHistory, bench: Bench) -> Trial:
    """Apply what was applied long ago; then fail in one database, and succeed in two: by stock's command and ours."""
    (failing, stock, ours), ended = bench.prepare(history.applied)
    if ended.error:
        return _problem(Verdict.NOT_APPLIED, history, ended, "")
    failed = _fail(history, bench, failing, stock)
    if failed.problem:
        return failed
    expected = bench.run("migrate", stock, history.everything)
    ended = bench.run("apply_migrations", ours, history.everything)
    # What failed before is as it was before.
    wanted = bench.dump(failing if expected.error or ended.is_refusal else stock, times=False)
    changed = diff(wanted, bench.dump(ours, times=False))
    if changed or (not expected.error and ended.error and not ended.is_refusal) or (expected.error and not ended.error):
        return _problem(Verdict.OTHER_RESULT, history, ended, changed)
    if expected.error:
        return _problem(Verdict.STOCK_FAILED, history, expected, "")
    return failed


def _fail(history: GeneratedHistory, bench: Bench, database: Database, stock: Database) -> Trial:
    sequences = history.one_transaction
    before = bench.dump(database, sequences=sequences)
    ended = bench.run("apply_migrations", database, history.planted)
    changed = diff(before, bench.dump(database, sequences=sequences))
    if changed:
        return _problem(Verdict.CHANGED, history, ended, changed)
    if not ended.is_refusal and PLANTED not in ended.message:
        expected = bench.run("migrate", stock, history.planted)
        is_same = (expected.error, expected.message) == (ended.error, ended.message)
        return _problem(Verdict.STOCK_FAILED if is_same else Verdict.WRONG_FAILURE, history, ended, "")
    return Trial(Verdict.HOLDS, refused=ended.is_refusal)


def _problem(verdict: Verdict, history: GeneratedHistory, ended: Ended, changed: str) -> Trial:
    return Trial(
        verdict,
        problem="\n".join([str(verdict), str(history), ended.output, ended.traceback, changed]),
        signature=" | ".join([f"{ended.error}: {ended.message[:150]}", *_heart(changed)]),
    )


def _heart(changed: str) -> list[str]:
    return [line[:120] for line in changed.splitlines() if line[:1] in "+-" and line[:3] not in {"+++", "---"}][:2]

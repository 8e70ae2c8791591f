"""What every journal must do, as tests: inherit from it and give fixtures named `journal` and `other`.

`other` is the same journal, opened by somebody else.
"""

# ruff: noqa: D102 - a test's name is its claim

import json
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from smooth_migrations.protocol.owner import Owner
from smooth_orchestrator.errors import JournalError, Locked
from smooth_orchestrator.journal import Fenced, Journal, Record, RecordKind
from smooth_orchestrator.told import records_of

__all__ = ["ELSEWHERE", "JournalContract", "begin", "finish", "gone"]

ELSEWHERE = Owner("r9", "ci-runner-7", 4711, "another machine", "1")


def gone() -> Owner:
    """Return an owner on this machine whose process has ended."""
    with subprocess.Popen(["true"]) as process:
        here = Owner.here("r8")
        return replace(here, pid=process.pid, started="1")


async def begin(journal: Journal, run_id: str, *, deploy: str = "shop") -> Record:
    """Record the beginning of a run."""
    data = {"deploy": deploy, "command": "deploy", "digest": "d1", "targets": ["primary"]}
    return await journal.append(run_id, RecordKind.RUN_STARTED, data=data)


async def finish(
    journal: Journal, run_id: str, outcome: str = "committed", error: dict[str, Any] | None = None
) -> None:
    """Record the end of a run."""
    data = {"outcome": outcome, "exit_code": 0 if error is None else 1, "report": {"error": error}}
    await journal.append(run_id, RecordKind.RUN_FINISHED, data=data)


class JournalContract:
    """The contract; its tests are collected where it is inherited."""

    async def test_records_come_back_in_order_and_as_they_were_written(self, journal: Journal) -> None:
        written = [
            await begin(journal, "r1"),
            await journal.append("r1", RecordKind.INTENT, database="primary"),
            await journal.append("r1", RecordKind.STEP, database="primary", data={"app": "orders", "fake": False}),
            await journal.append("r1", RecordKind.DECISION, data={"decision": "commit", "scope": "deploy"}),
        ]

        assert await journal.records("r1") == tuple(written)
        assert [record.seq for record in written] == sorted({record.seq for record in written})

    async def test_a_record_is_dated_now_in_utc(self, journal: Journal) -> None:
        record = await journal.append("r1", RecordKind.INTENT)

        assert record.at.utcoffset() == timedelta(0)
        assert abs(record.at - datetime.now(UTC)) < timedelta(minutes=1)

    async def test_runs_do_not_mix(self, journal: Journal) -> None:
        await journal.append("r1", RecordKind.INTENT, database="one")
        await journal.append("r2", RecordKind.INTENT, database="two")

        assert [record.database for record in await journal.records("r2")] == ["two"]
        assert await journal.records("r3") == ()

    @pytest.mark.parametrize("text", ["\x00", "\ud800", "naïve 🐘", "'; DROP TABLE journal; --", "a\nb", "x" * 200_000])
    async def test_any_text_survives_in_data(self, journal: Journal, text: str) -> None:
        await journal.append("r1", RecordKind.HELD, data={"text": text, "nested": [{"text": text}]})

        (record,) = await journal.records("r1")
        assert record.data == {"text": text, "nested": [{"text": text}]}

    async def test_data_is_what_json_makes_of_it(self, journal: Journal) -> None:
        data = {"steps": ("a", "b"), "kind": RecordKind.STEP, "nothing": None, "number": 1.5}

        record = await journal.append("r1", RecordKind.STEP, data=data)

        assert record.data == json.loads(json.dumps(data))

    async def test_data_that_json_does_not_know_is_a_bug_and_writes_nothing(self, journal: Journal) -> None:
        with pytest.raises(TypeError):
            await journal.append("r1", RecordKind.STEP, data={"secret": object()})

        assert await journal.records("r1") == ()

    async def test_changing_what_append_returned_changes_no_record(self, journal: Journal) -> None:
        data = {"names": ["a"]}
        await journal.append("r1", RecordKind.STEP, data=data)
        data["names"].append("b")

        (record,) = await journal.records("r1")
        assert record.data == {"names": ["a"]}

    async def test_runs_are_listed_newest_first_for_one_deploy_alone(self, journal: Journal) -> None:
        for run_id in ("r1", "r2", "r3"):
            await begin(journal, run_id)
        await begin(journal, "other", deploy="billing")

        assert [run.run_id for run in await journal.runs("shop")] == ["r3", "r2", "r1"]
        assert [run.run_id for run in await journal.runs("shop", limit=2)] == ["r3", "r2"]
        assert await journal.runs("nobody") == ()

    async def test_a_run_that_has_not_ended_has_neither_end_nor_outcome(self, journal: Journal) -> None:
        started = await begin(journal, "r1")
        await journal.append("r1", RecordKind.INTENT, database="primary")

        (run,) = await journal.runs("shop")
        assert (run.command, run.digest, run.started_at) == ("deploy", "d1", started.at)
        assert (run.finished_at, run.outcome, run.exit_code, run.error) == (None, None, None, None)

    async def test_a_run_ends_with_its_last_end(self, journal: Journal) -> None:
        await begin(journal, "r1")
        await finish(journal, "r1", "needs_operator", error={"message": "the server stays away"})
        await finish(journal, "r1", "committed")

        (run,) = await journal.runs("shop")
        assert (run.outcome, run.exit_code, run.error) == ("committed", 0, None)

    async def test_a_run_begun_again_is_one_run_that_has_not_ended(self, journal: Journal) -> None:
        await begin(journal, "r1")
        await finish(journal, "r1", "rolled_back", error={"message": "no"})
        await begin(journal, "r2")
        await begin(journal, "r1")

        assert [(run.run_id, run.outcome) for run in await journal.runs("shop")] == [("r1", None), ("r2", None)]

    async def test_the_error_of_an_ended_run_is_its_reports(self, journal: Journal) -> None:
        await begin(journal, "r1")
        await finish(journal, "r1", "rolled_back", error={"message": "no"})

        (run,) = await journal.runs("shop")
        assert (run.outcome, run.exit_code, run.error) == ("rolled_back", 1, {"message": "no"})

    async def test_appending_in_a_cancelled_scope_writes_nothing(self, journal: Journal) -> None:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await journal.append("r1", RecordKind.DECISION, data={"decision": "commit"})

        assert scope.cancelled_caught
        assert await journal.records("r1") == ()

    async def test_appending_that_has_begun_is_not_cancelled(self, journal: Journal) -> None:
        written: list[Record] = []

        async def decide() -> None:
            written.append(await journal.append("r1", RecordKind.DECISION, data={"decision": "commit"}))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(decide)
            # Far enough for the task to be within its call.
            await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()

        assert len(written) == 1
        assert await journal.records("r1") == tuple(written)

    async def test_tasks_may_append_at_once(self, journal: Journal) -> None:
        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(journal.append, f"r{number % 2}", RecordKind.INTENT)

        assert len(await journal.records("r0")) == len(await journal.records("r1")) == 10

    async def test_a_closed_journal_refuses_and_closing_twice_is_no_error(self, journal: Journal) -> None:
        await journal.aclose()
        await journal.aclose()

        with pytest.raises(JournalError, match="closed"):
            await journal.append("r1", RecordKind.INTENT)

    async def test_a_lease_keeps_others_out_by_name_until_it_is_given_back(
        self, journal: Journal, other: Journal
    ) -> None:
        first = await journal.acquire("shop", ELSEWHERE)
        with pytest.raises(Locked, match="the deploy 'shop' is at work: host ci-runner-7, pid 4711, since "):
            await other.acquire("shop", Owner.here("r2"))
        await journal.renew()
        await journal.release()
        await journal.release()

        second = await other.acquire("shop", Owner.here("r2"))
        assert second.epoch > first.epoch

    async def test_leases_of_two_deploys_have_nothing_to_do_with_each_other(
        self, journal: Journal, other: Journal
    ) -> None:
        await journal.acquire("shop", ELSEWHERE)
        await other.acquire("billing", Owner.here("r2"))

        await begin(journal, "r1")
        await begin(other, "r2", deploy="billing")
        assert len(await other.records("r1")) == len(await journal.records("r2")) == 1

    async def test_two_deploys_may_give_their_runs_one_id_at_once(self, journal: Journal, other: Journal) -> None:
        await journal.acquire("shop", ELSEWHERE)
        await other.acquire("billing", Owner.here("r1"))
        await begin(journal, "r1")
        await begin(other, "r1", deploy="billing")
        await journal.append("r1", RecordKind.INTENT, database="primary")
        await finish(other, "r1", "rolled_back", error={"message": "no"})

        assert [(run.outcome, run.error) for run in await journal.runs("shop")] == [(None, None)]
        assert [run.outcome for run in await journal.runs("billing")] == ["rolled_back"]
        ours = records_of("shop", await journal.records("r1"))
        assert [record.kind for record in ours] == [RecordKind.RUN_STARTED, RecordKind.INTENT]

    async def test_whoever_has_lost_the_lease_writes_nothing_any_more(self, journal: Journal, other: Journal) -> None:
        await journal.acquire("shop", gone())
        await begin(journal, "r1")
        await other.acquire("shop", Owner.here("r2"))

        with pytest.raises(Fenced, match="the lease of the deploy 'shop' was lost"):
            await journal.append("r1", RecordKind.DECISION, data={"decision": "commit", "scope": "deploy"})
        with pytest.raises(Fenced):
            await journal.renew()
        await journal.release()
        assert [record.kind for record in await other.records("r1")] == [RecordKind.RUN_STARTED]
        await other.append("r2", RecordKind.DECISION, data={"decision": "abort", "scope": "deploy"})
        await other.renew()

    async def test_of_many_that_acquire_at_once_one_succeeds(self, journal: Journal, other: Journal) -> None:
        kept_out: list[str] = []

        async def acquire(through: Journal, name: str) -> None:
            try:
                await through.acquire("shop", replace(ELSEWHERE, name=name))
            except Locked as error:
                kept_out.append(error.message)

        async with anyio.create_task_group() as tasks:
            for number in range(5):
                tasks.start_soon(acquire, journal, f"a{number}")
                tasks.start_soon(acquire, other, f"b{number}")

        assert len(kept_out) == 9

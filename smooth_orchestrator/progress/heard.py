"""What the events of a run tell of it: how far each database has come."""

import shlex
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from smooth_orchestrator.events import Decision, EventName, blocker_text
from smooth_orchestrator.progress.told import DatabaseTold, PhaseTold, State, Told

__all__ = ["Heard"]

_Event = Mapping[str, Any]

# Of so many that block it a database names the first.
_BLOCKERS_NAMED: Final = 2
_STARTING: Final = "starting"
_LOOKING: Final = "looking"


class Heard:
    """A listener of `logs.hearing` that keeps the last thing it was told of each database.

    Args:
        command: whose events they are.
        clock: monotonic, in seconds.
    """

    def __init__(self, command: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._command = command
        self._clock = clock
        self._take = self._by_event()
        self._started_s = clock()
        # The one that draws is another thread; whoever logs waits for a copy of two dictionaries at the most.
        self._lock = threading.Lock()
        self._deploy = self._run_id = ""
        self._doing = _STARTING
        self._goes_back = False
        self._phases: dict[str, PhaseTold] = {}
        self._databases: dict[str, DatabaseTold] = {}

    def __call__(self, event: _Event) -> None:
        """Take note of one event."""
        with self._lock:
            self._deploy = event["deploy"] or self._deploy
            self._run_id = event["run_id"] or self._run_id
            if (take := self._take.get(event["event"])) is not None:
                take(event)

    def told(self) -> Told:
        """Return what is known now."""
        with self._lock:
            phases, databases, doing = (*self._phases.values(),), (*self._databases.values(),), self._doing
        now_s = self._clock()
        return Told(self._command, self._deploy, self._run_id, doing, now_s - self._started_s, now_s, phases, databases)

    def _by_event(self) -> Mapping[str, Callable[[_Event], None]]:
        return {
            EventName.WORKER_STARTED: self._up,
            EventName.DEPLOY_STARTED: self._begun,
            EventName.PREFLIGHT_PASSED: self._looked_at,
            EventName.RECOVER_STARTED: self._settling,
            EventName.PHASE_STARTED: self._phase_begun,
            EventName.PHASE_FINISHED: self._phase_ended,
            EventName.GATE_STARTED: self._gate_begun,
            EventName.GATE_PASSED: self._gate_ended,
            EventName.GATE_FAILED: self._gate_ended,
            EventName.MIGRATION_STARTED: self._migration_begun,
            EventName.MIGRATION_APPLIED: self._moved,
            EventName.MIGRATION_UNAPPLIED: self._moved,
            EventName.MIGRATION_FAILED: self._failed,
            EventName.MIGRATION_UNAPPLY_FAILED: self._failed,
            EventName.LOCK_WAITING: self._waiting,
            EventName.LOCK_WAITED: self._waited,
            EventName.LOCK_RETRY: self._retrying,
            EventName.TIER_CHANGED: self._stepping,
            EventName.DATABASE_BEGUN_ANEW: self._begun_anew,
            EventName.OUTPUT_CAPTURED: self._printed,
            EventName.DATABASE_PREPARED: self._ready,
            EventName.DATABASE_REHEARSED: self._rehearsed,
            EventName.DATABASE_COMMITTED: self._committed,
            EventName.DATABASE_ROLLED_BACK: self._rolled_back,
            EventName.DEPLOY_DECIDED: self._decided,
            EventName.RUN_INTERRUPTED: self._interrupted,
            EventName.DEPLOY_COMMITTED: self._ended,
            EventName.DEPLOY_ROLLED_BACK: self._ended,
            EventName.DEPLOY_NEEDS_OPERATOR: self._ended,
            EventName.REHEARSAL_FINISHED: self._ended,
            EventName.RECOVER_SETTLED: self._ended,
        }

    def _up(self, _event: _Event) -> None:
        # Commands that change nothing tell no more than this.
        if self._doing == _STARTING:
            self._doing = _LOOKING

    def _begun(self, event: _Event) -> None:
        self._doing, self._goes_back = "looking at the databases", False
        self._phases = {name: PhaseTold(name) for name in event.get("phases", ())}
        now_s = self._clock()
        self._databases = {name: DatabaseTold(name, State.TO_COME, now_s) for name in event["databases"]}

    def _looked_at(self, event: _Event) -> None:
        self._doing = "migrating"
        self._each(event.get("idle", ()), state=State.IDLE)

    def _settling(self, event: _Event) -> None:
        if not self._databases:
            self._doing = "settling an earlier run"
        self._each(event.get("databases", ()), state=State.RETRYING, note="commits once more")

    def _phase_begun(self, event: _Event) -> None:
        self._doing = "migrating"
        self._phases[event["phase"]] = PhaseTold(event["phase"], State.AT_WORK)

    def _phase_ended(self, event: _Event) -> None:
        state = State.READY if event["outcome"] == "committed" else State.ROLLED_BACK
        self._phases[event["phase"]] = PhaseTold(event["phase"], state)

    def _gate_begun(self, event: _Event) -> None:
        name = event.get("phase", "")
        self._phases[name] = PhaseTold(name, State.AT_WORK, shlex.join(event["argv"]), self._clock())

    def _gate_ended(self, event: _Event) -> None:
        name = event.get("phase", "")
        self._phases[name] = PhaseTold(name, State.AT_WORK)

    def _migration_begun(self, event: _Event) -> None:
        state = State.GOING_BACK if self._goes_back else State.AT_WORK
        migration = f"{event['app']}.{event['migration']}"
        pending = event.get("pending", 0)
        worker = event.get("worker", "")
        told = {"migration": migration, "pending": pending, "note": "", "worker": worker}
        self._change(event, state=state, since_s=self._clock(), **told)

    def _moved(self, event: _Event) -> None:
        database = self._of(event)
        is_undone = self._goes_back or database.state is State.FAILED
        moved = max(0, database.moved + (-1 if is_undone else 1))
        state = database.state if is_undone else State.AT_WORK
        self._change(event, state=state, since_s=self._clock(), moved=moved, note=database.note if is_undone else "")

    def _failed(self, event: _Event) -> None:
        self._doing = "stopping, after a failure"
        migration = f"{event['app']}.{event['migration']}"
        note = event["error"]["message"]
        self._change(event, state=State.FAILED, since_s=self._clock(), migration=migration, note=note)

    def _waiting(self, event: _Event) -> None:
        self._change(event, state=State.WAITING, since_s=self._clock(), note=f"lock of {_named(event['blockers'])}")

    def _waited(self, event: _Event) -> None:
        if self._of(event).state is State.WAITING:
            self._change(event, state=State.AT_WORK, since_s=self._clock(), note="")

    def _retrying(self, event: _Event) -> None:
        note = f"attempt {event['attempt'] + 1} in {event['delay_ms'] / 1000:.1f} s: {event['error']['message']}"
        self._change(event, state=State.RETRYING, since_s=self._clock(), moved=0, note=note)

    def _stepping(self, event: _Event) -> None:
        if event["tier"] != "compensated" or self._command == "rehearse":
            return  # nothing is done again
        self._doing = "migrating"
        note = f"each migration by itself: {event['error']['message']}"
        self._change(event, state=State.RETRYING, since_s=self._clock(), note=note)

    def _begun_anew(self, event: _Event) -> None:
        note = f"begun anew: {event['error']['message']}"
        self._change(
            event, state=State.RETRYING, since_s=self._clock(), moved=event.get("kept", 0), note=note, worker=""
        )

    def _printed(self, event: _Event) -> None:
        if event.get("database") in self._databases and self._of(event).state is State.AT_WORK:
            self._change(event, note=event["line"])

    def _ready(self, event: _Event) -> None:
        self._change(event, state=State.READY, since_s=self._clock(), migration="", note="")

    def _rehearsed(self, event: _Event) -> None:
        if "error" in event:
            self._change(event, state=State.FAILED, since_s=self._clock(), note=event["error"]["message"])
        else:
            self._ready(event)

    def _committed(self, event: _Event) -> None:
        self._change(event, state=State.COMMITTED, since_s=self._clock(), migration="", note="")

    def _rolled_back(self, event: _Event) -> None:
        if self._of(event).state is not State.FAILED:
            self._change(event, state=State.ROLLED_BACK, since_s=self._clock(), migration="", note="")

    def _decided(self, event: _Event) -> None:
        self._goes_back = event["decision"] == Decision.ABORT
        self._doing = "taking everything back" if self._goes_back else "committing"

    def _interrupted(self, event: _Event) -> None:
        self._doing = f"stopping, because of {event['signal']}"

    def _ended(self, event: _Event) -> None:
        self._doing = str(event["outcome"]).replace("_", " ")

    def _of(self, event: _Event) -> DatabaseTold:
        # An earlier run that is settled may have had others than this one.
        name = event["database"]
        return self._databases.get(name) or DatabaseTold(name, State.TO_COME, self._clock())

    def _change(self, event: _Event, **changes: Any) -> None:  # noqa: ANN401 - fields of `DatabaseTold`
        self._databases[event["database"]] = replace(self._of(event), **changes)

    def _each(self, names: Iterable[str], **changes: Any) -> None:  # noqa: ANN401 - the same
        for name in names:
            if name in self._databases:
                self._change({"database": name}, since_s=self._clock(), **changes)


def _named(blockers: Iterable[Mapping[str, Any]]) -> str:
    names = [*map(blocker_text, blockers)]
    more = len(names) - _BLOCKERS_NAMED
    return ", ".join(names[:_BLOCKERS_NAMED]) + (f" and {more} more" if more > 0 else "")

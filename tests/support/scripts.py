"""Scripts of deploys that are struck, and what the model in `tests.support.model` makes of them.

A script says everything: the same one always goes the same way, and its `repr` is the code that makes it again.
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Final

from smooth_orchestrator.config import Tier
from smooth_orchestrator.events import Decision
from smooth_orchestrator.journal import Record, RecordKind
from smooth_orchestrator.report import RunOutcome
from smooth_orchestrator.rules import Shown
from tests.support.model.coordinator import Coordinator
from tests.support.model.databases import MIGRATIONS, Database, Journal, Loss, shown_by
from tests.support.model.runs import Settings, phase_name
from tests.support.model.scheduling import Scheduler

__all__ = ["Cut", "Played", "Script", "play"]

# What Python shows of an enumeration's member is no code.
_MEMBER: Final = re.compile(r"<(\w+\.\w+): '\w+'>")
_RUN: Final = "struck"
_AGAIN: Final = "again"
_FATES: Final = (
    *("journal.preparing", "prepare", "decide", "journal.decision", "commit", "journal.committed", "seal"),
    *("rollback", "unapply", "journal.rolled_back", "journal.unstep", "journal.run_finished"),
)
_UNDECIDED: Final = ("prepare.after", "decide.before", "journal.decision.before", "seal.after", "unapply")
_DECIDED: Final = ("decide.after", "journal.decision.after", "commit", "journal.committed", "journal.run_finished")
_SETTLED: Final = frozenset({RunOutcome.COMMITTED, RunOutcome.ROLLED_BACK})
_LONGEST: Final = 5000


@dataclass(frozen=True, slots=True)
class Cut:
    """A connection that is cut at a statement, for the first time that it is executed.

    Args:
        database: its number.
        statement: by the name of its crash points.
        is_executed: whether the server does it all the same.
    """

    database: int
    statement: str
    is_executed: bool


@dataclass(frozen=True, slots=True, repr=False)
class Script:
    """A deploy, and what befalls it.

    Args:
        tiers: of each database; None where nothing is pending.
        phases: the number of each one's phase.
        files: whether each is a file rather than on a server.
        by_phase: whether each phase is decided by itself.
        fails: whether the gate of the last phase fails.
        workers: how many a coordinator has.
        order: which of those that can go on does so, again and again.
        kills: at which crash point the deploy is killed, and each recovery that follows; None where it is not.
        cut: a reply that is lost.
        loses_journal: after which of these commands the journal is lost.
        choice: what the operator says, where somebody must.
        frozen_at: after how many steps of the deploy its processes stand still, until everything is settled.
        rival: after how many steps somebody else tries to recover, and whether by a journal of their own.
    """

    tiers: tuple[Tier | None, ...]
    phases: tuple[int, ...]
    files: tuple[bool, ...]
    by_phase: bool = False
    fails: bool = False
    workers: int = 2
    order: tuple[int, ...] = ()
    kills: tuple[str | None, ...] = (None,)
    cut: Cut | None = None
    loses_journal: int | None = None
    choice: Decision = Decision.COMMIT
    frozen_at: int | None = None
    rival: tuple[int, bool] | None = None

    def __repr__(self) -> str:
        said = [
            f"{each.name}={value!r}" for each in fields(self) if (value := getattr(self, each.name)) != each.default
        ]
        return f"Script({_MEMBER.sub(lambda found: found[1], ', '.join(said))})"

    @classmethod
    def drawn(cls, chance: random.Random, *, servers: bool = False) -> "Script":
        """Draw one.

        Args:
            chance: decides.
            servers: whether it is one that can be played on the fleet of `deploys`: two servers and a file.
        """
        files = (False, True, False) if servers else tuple(chance.random() < 0.3 for _n in range(chance.randint(2, 4)))
        phases = (0, 0, 1) if servers else tuple(sorted(chance.randint(0, 1) for _file in files))
        phases = tuple(phase - phases[0] for phase in phases)
        script = cls(
            tiers=tuple(_tier(chance, is_file=each, may_idle=not servers or each) for each in files),
            phases=phases,
            files=files,
            by_phase=chance.random() < 0.25,
            fails=chance.random() < 0.25,
            workers=2 if servers else chance.randint(1, 2),
            order=tuple(chance.randint(0, 11) for _n in range(chance.randint(1, 16))),
            choice=chance.choice([*Decision]),
        )
        if not any(script.tiers):
            script = replace(script, tiers=(Tier.HELD_OPEN, *script.tiers[1:]))
        what = chance.choice(["kill", "kill", "kill", "cut", *([] if servers else ["freeze", "rival"])])
        loses = what in {"kill", "cut"} and chance.random() < 0.3
        steps, visits = (played := play(script)).steps, played.visits[0]
        if what == "cut" and (cuts := [*script._cuts()]):
            script = replace(script, cut=chance.choice(cuts))
        elif what == "freeze":
            script = replace(script, frozen_at=chance.randrange(steps))
        elif what == "rival":
            # Where phases commit by themselves a marker tells whoever has no journal of the run to commit the rest.
            by_own = chance.random() < 0.5 and not script.by_phase
            script = replace(script, rival=(chance.randrange(steps), by_own))
        if what in {"kill", "rival"}:
            wanted = chance.choice([_UNDECIDED, *([] if loses else [_DECIDED, _FATES])])
            script = replace(script, kills=(_point(chance, visits, wanted),))
        for _recovery in range(0 if what == "freeze" else chance.choice([0, 0, 1, 1, 2])):
            if more := play(replace(script, kills=(*script.kills, None))).visits[-1]:
                script = replace(script, kills=(*script.kills, _point(chance, more, _FATES)))
        if loses:
            script = replace(script, loses_journal=chance.choice([0, chance.randrange(len(script.kills))]))
        return script

    def _cuts(self) -> Iterator[Cut]:
        for number, (tier, is_file) in enumerate(zip(self.tiers, self.files, strict=True)):
            if tier is not None and not is_file:
                ends = ("commit_prepared", "rollback_prepared") if tier is Tier.TWO_PHASE else ("commit",)
                for statement in ("prepare", *ends):
                    yield from (Cut(number, statement, is_executed) for is_executed in (False, True))


def _point(chance: random.Random, visits: Sequence[str], wanted: tuple[str, ...]) -> str:
    """Choose one; rather one of those that begin so."""
    some = [visit for visit in visits if visit.startswith(wanted)]
    return chance.choice(some if some and chance.random() < 0.7 else visits)


def _tier(chance: random.Random, *, is_file: bool, may_idle: bool) -> Tier | None:
    may = [Tier.HELD_OPEN, Tier.COMPENSATED, *([] if is_file else [Tier.TWO_PHASE, Tier.TWO_PHASE])]
    return None if may_idle and chance.random() < 0.15 else chance.choice(may)


@dataclass(slots=True)
class Played:
    """What became of a script.

    Args:
        visits: the crash points that each command reached, with how often; the deploy's first.
        steps: how many the deploy took.
        is_new: whether the databases were new when everything was settled; None where that is not said of all of them.
        asked: whether an operator had to choose.
    """

    visits: list[list[str]] = field(default_factory=list)
    steps: int = 0
    is_new: bool | None = False
    asked: bool = False


def play(script: Script) -> Played:
    """Play a script to its end, and assert after each step what must always be so.

    Raises:
        AssertionError: with the script.
    """
    try:
        return _Play(script).play()
    except AssertionError as error:
        error.add_note(f"in {script!r}")
        raise


class _Play:
    def __init__(self, script: Script) -> None:
        self._script = script
        self._databases = [
            Database(number, tier, phase, is_server=not is_file)
            for number, (tier, phase, is_file) in enumerate(zip(script.tiers, script.phases, script.files, strict=True))
        ]
        for database in self._databases:
            if database.tier is None:
                database.applied = MIGRATIONS
        self._scheduler = Scheduler(script.order, self._after_each)
        self._journal = Journal()
        self._last = max(script.phases)
        self._settings = self._settings_of(fails=script.fails)
        self._is_decided: dict[str, bool] = {}
        self._done: dict[str, set[int]] = {_RUN: set(), _AGAIN: set()}
        self._is_told = self._binds = True
        self._known = 0
        self._coordinators: list[Coordinator] = []
        self._untold: list[Database] = []
        self._played = Played()

    def _settings_of(self, *, fails: bool) -> Settings:
        script = self._script
        return Settings(
            self._databases, self._last + 1, script.by_phase, fails, script.workers, self._scheduler, self._on_record
        )

    def play(self) -> Played:
        """Play it."""
        script = self._script
        frozen: Coordinator | None = None
        for number, point in enumerate(script.kills):
            if number == 0 and script.cut is not None:
                cut = script.cut
                self._databases[cut.database].loss = Loss(cut.database, cut.statement, cut.is_executed)
            coordinator = self._start("deploy" if number == 0 else "recover", point)
            frozen = self._run(coordinator, is_first=number == 0) or frozen
            self._played.visits.append(coordinator.visits())
            if script.loses_journal == number:
                self._lose_journal()
        self._recover_to_the_end()
        if frozen is not None:
            frozen.freeze(is_frozen=False)
            self._run_until(frozen)
            self._recover_to_the_end()
        self._assert_settled()
        self._deploy_again()
        return self._played

    # --- commands ---------------------------------------------------------------------------------------------------

    def _start(self, command: str, point: str | None = None, forced: Decision | None = None) -> Coordinator:
        name, _, visit = (point or "").partition(":")
        strike = (name, int(visit)) if point else None
        coordinator = Coordinator(self._settings, self._journal, strike, forced)
        self._coordinators.append(coordinator)
        self._scheduler.spawn(coordinator, coordinator.deploy(_RUN) if command == "deploy" else coordinator.recover())
        return coordinator

    def _run(self, coordinator: Coordinator, *, is_first: bool) -> Coordinator | None:
        """Run a command until it ends, is killed, or stands still; return it in that case."""
        script, steps = self._script, 0
        while coordinator.is_alive:
            if is_first and script.frozen_at == steps:
                coordinator.freeze(is_frozen=True)
                return coordinator
            if is_first and script.rival is not None and script.rival[0] == steps:
                self._rival(by_own=script.rival[1])
            steps += 1
            self._step(steps)
        if is_first:
            self._played.steps = steps
        return None

    def _run_until(self, coordinator: Coordinator) -> None:
        steps = 0
        while coordinator.is_alive:
            steps += 1
            self._step(steps)

    def _step(self, steps: int) -> None:
        assert self._scheduler.step(), "nobody can go on"
        assert steps < _LONGEST, "it never ends"

    def _rival(self, *, by_own: bool) -> None:
        rival = Coordinator(self._settings, Journal() if by_own else self._journal)
        self._coordinators.append(rival)
        self._scheduler.spawn(rival, rival.recover())

    def _recover(self, forced: Decision | None = None) -> Coordinator:
        coordinator = self._start("recover", forced=forced)
        self._run_until(coordinator)
        if coordinator.failure == "Locked" or (coordinator.outcome is RunOutcome.NEEDS_OPERATOR and not forced):
            # Somebody was still at work, and now is no more, unless they stand still.
            self._drain()
            coordinator = self._start("recover", forced=forced)
            self._run_until(coordinator)
        return coordinator

    def _drain(self) -> None:
        steps = 0
        while self._scheduler.step():
            steps += 1
            assert steps < _LONGEST, "it never ends"

    def _recover_to_the_end(self) -> None:
        coordinator = self._recover()
        if coordinator.failure == "journal_lost":
            before = self._state()
            self._assert_nobody_can_tell()
            self._played.asked = True
            # What nobody can tell to have belonged to the run stays old until the next deploy.
            untold = [
                each for each, shown in zip(self._databases, self._shown(), strict=True) if shown is Shown.NOTHING
            ]
            again = self._recover()
            assert (again.failure, self._state()) == ("journal_lost", before), "what nobody can tell was settled"
            coordinator = self._recover(self._script.choice)
            self._untold = untold
        self._drain()
        is_held_up = any(process.is_frozen for process in self._coordinators)
        assert is_held_up or coordinator.outcome in {None, *_SETTLED}, f"left unsettled: {coordinator.failure}"

    def _deploy_again(self) -> None:
        self._settings = self._settings_of(fails=False)
        for database in self._databases:
            database.loss = None
        coordinator = Coordinator(self._settings, self._journal)
        self._coordinators.append(coordinator)
        self._scheduler.spawn(coordinator, coordinator.deploy(_AGAIN))
        self._run_until(coordinator)
        assert all(database.is_new for database in self._databases), f"the next deploy fails: {coordinator.failure}"

    def _lose_journal(self) -> None:
        # Nobody is at work, so the next one writes the new one. What was written down proves nothing any more.
        self._journal = Journal()
        self._is_told = False
        self._known = len(self._coordinators)
        self._binds = bool(self._done[_RUN])

    # --- what must always be so -------------------------------------------------------------------------------------

    def _state(self) -> list[tuple[int, bool, bool, list[str]]]:
        return [
            (each.applied, bool(each.markers), bool(each.unfinished), sorted(each.prepared)) for each in self._databases
        ]

    def _on_record(self, record: Record, journal: Journal) -> None:
        if record.kind is not RecordKind.DECISION:
            return
        is_commit = record.data["decision"] == Decision.COMMIT
        is_whole = record.data["scope"] in {"deploy", phase_name(self._last)}
        if is_commit and is_whole:
            self._is_decided[record.run_id] = True
        is_given_up = self._binds and not is_commit and self._is_decided.get(record.run_id, False)
        assert not is_given_up, "a decided commit was given up"
        is_known = any(
            each.kind is RecordKind.RUN_STARTED and each.run_id == record.run_id and not each.data.get("adopted")
            for each in journal.records
        )
        if not is_known and not self._played.asked:
            shown = {*self._shown()}
            proves = Shown.DONE in shown if is_commit else not {Shown.PREPARED, Shown.STEPS} & shown
            assert proves, "of a run that its journal does not know it was decided without the operator"

    def _after_each(self) -> None:
        for run, done in self._done.items():
            for database in self._databases:
                if run in database.markers and database.number not in done:
                    self._on_commit(run, database)
                    done.add(database.number)
                elif run not in database.markers and database.number in done:
                    assert not (self._binds and self._is_decided.get(run)), "a decided commit was taken back"
                    done.discard(database.number)

    def _on_commit(self, run: str, database: Database) -> None:
        """A database has become new: that was decided before, or is the decision."""
        if not self._is_decided.get(run) and not self._script.by_phase:
            decides = {coordinator.deciding for coordinator in self._coordinators}
            assert database in decides, "a database became new without a decision"
        if not self._script.by_phase or database.phase == self._last:
            self._is_decided[run] = True
            self._binds = True

    def _since_loss(self) -> Sequence[Coordinator]:
        return self._coordinators[self._known :]

    def _shown(self) -> Sequence[Shown]:
        return [shown_by(database, _RUN) for database in self._databases]

    def _assert_nobody_can_tell(self) -> None:
        shown = {*self._shown()}
        assert not self._is_told, "an operator was asked although the journal tells"
        assert {Shown.PREPARED, Shown.STEPS} & shown, "an operator was asked about nothing"
        assert Shown.DONE not in shown, "an operator was asked although a marker tells"

    def _assert_settled(self) -> None:
        assert all(each.is_new for each in self._databases if each.tier is None), "what had nothing pending was changed"
        assert all(each.is_old for each in self._untold if each.tier is not None), "what shows nothing was moved"
        moved = [each for each in self._databases if each.tier is not None and each not in self._untold]
        assert all(each.is_new or each.is_old for each in moved), f"half done: {self._state()}"
        if not self._is_told and not any(each.outcome in _SETTLED for each in self._since_loss()):
            # Of a run that the journal has lost a committed database alone tells nothing: the next deploy goes on.
            self._played.is_new = None if any(each.is_new for each in moved) else False
            return
        assert len({each.is_new for each in moved}) == 1, f"mixed: {self._state()}"
        assert not any(each.is_held or each.session for each in self._databases), "somebody is still at work"
        self._played.is_new = moved[0].is_new
        if self._played.asked:
            assert self._played.is_new == (self._script.choice is Decision.COMMIT), "the operator was not obeyed"
            if any(each.tier is not None and each.is_new != self._played.is_new for each in self._untold):
                self._played.is_new = None
        elif self._is_told:
            assert self._played.is_new == self._is_decided.get(_RUN, False), "it was decided otherwise"

"""What a run's records in the journal say, read back. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from smooth_migrations.protocol import Back, Before, ContractHalf, Received, Step
from smooth_orchestrator.config import CommitUnit, OnFailure, Tier
from smooth_orchestrator.events import Decision
from smooth_orchestrator.identity import Identity
from smooth_orchestrator.journal import Record, RecordKind, understood
from smooth_orchestrator.plan import Phase, Plan, Target

__all__ = ["Held", "Told", "records_of"]


@dataclass(frozen=True, slots=True)
class Held:
    """What a target held at the barrier, or has committed.

    Args:
        steps: what was moved, in order.
        before: what an undo of them must know.
        received: what was made beside.
        held_back: the contract halves of what was moved.
        contracted: the contract halves that were done.
    """

    steps: tuple[Step, ...]
    before: Before
    received: Received
    held_back: tuple[ContractHalf, ...] = ()
    contracted: tuple[ContractHalf, ...] = ()

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Self:
        """Read the data of a `HELD` record."""
        before = data.get("before", {})
        named = {key: tuple(before[key]) for key in ("extensions", "schemas") if key in before}
        return cls(
            tuple(Step(**step) for step in data["steps"]),
            Before(**{**before, **named}),
            Received.of(data.get("received", {})),
            *(tuple(ContractHalf(**half) for half in data.get(key, ())) for key in ("held_back", "contracted")),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the data of a record that says so."""
        return asdict(self)


@dataclass(slots=True)
class Told:
    """What a run's records say.

    Args:
        deploy: whose run it is; None where nothing tells.
        targets: of the plan as it was.
        tiers: of the targets that were begun.
        options: how their migrations are run.
        held: of those that have reached the barrier.
        heard: the databases of which it tells what was moved there, be it nothing.
        back: what was to be taken back on them, in a rollback.
        decisions: (scope, decision) in order.
        takes_back: the run that a rollback takes back.
        finalises: the runs whose contract halves are done.
        commit: what one decision covered when the run began; None where an earlier version wrote its beginning.
        on_failure: what a failure was to do to phases before it; likewise.
        phases: the phases when the run began, in order, each with its databases; likewise.
        identities: which databases its targets were; none where an earlier version wrote its beginning.
        missing: those of them that were not there when it began: SQLite makes a file when it is first written to.
        gids: of the transactions that it was about to prepare.
        foreign: of those that runs of other deploys with its id were about to prepare.
        has_ended: whether its end was written down.
        rehearses: whether it was a rehearsal, which decides nothing.
        is_adopted: whether its beginning was not written by itself, but by a recovery that found what it had left.
    """

    targets: frozenset[str] = frozenset()
    deploy: str | None = None
    tiers: dict[str, Tier] = field(default_factory=dict)
    options: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    held: dict[str, Held] = field(default_factory=dict)
    heard: set[str] = field(default_factory=set)
    back: dict[str, Back] = field(default_factory=dict)
    decisions: list[tuple[str, Decision]] = field(default_factory=list)
    takes_back: str | None = None
    finalises: tuple[str, ...] | None = None
    commit: CommitUnit | None = None
    on_failure: OnFailure | None = None
    phases: tuple[tuple[str, tuple[str, ...]], ...] = ()
    identities: dict[str, Identity] = field(default_factory=dict)
    missing: frozenset[str] = frozenset()
    gids: set[str] = field(default_factory=set)
    foreign: frozenset[str] = frozenset()
    has_ended: bool = False
    rehearses: bool = False
    is_adopted: bool = False

    @property
    def is_known(self) -> bool:
        """Whether the run itself has written its beginning down, and by that which databases are its own."""
        return bool(self.targets) and not self.is_adopted

    @classmethod
    def of(cls, records: Iterable[Record]) -> "Told":
        """Return what records say, oldest first; of a run that was begun again, its last beginning counts.

        Raises:
            JournalDamaged: one of them does not say what one of its kind says.
        """
        told = cls()
        for record in records:
            with understood(record.place):
                if record.kind is RecordKind.RUN_STARTED:
                    told = cls._begun(record.data)
                else:
                    told.hear(record)
        return told

    @classmethod
    def _begun(cls, data: Mapping[str, Any]) -> "Told":
        told = cls(frozenset(data["targets"]), takes_back=data.get("takes_back"))
        told.deploy = data.get("deploy")
        told.is_adopted = bool(data.get("adopted"))
        told.rehearses = data.get("command") == "rehearse"
        finalises = data.get("finalises")
        told.finalises = None if finalises is None else tuple(finalises)
        told.commit = CommitUnit(data["commit"]) if "commit" in data else None
        told.on_failure = OnFailure(data["on_failure"]) if "on_failure" in data else None
        told.phases = tuple((each["name"], tuple(each["databases"])) for each in data.get("phases", ()))
        told.identities = {name: Identity(**each) for name, each in data.get("identities", {}).items()}
        told.missing = frozenset(data.get("missing", ()))
        return told

    def hear(self, record: Record) -> None:
        """Take note of one record after the run's beginning."""
        match record.kind:
            case RecordKind.INTENT if record.database:
                self.tiers[record.database] = Tier(record.data["tier"])
                self.options[record.database] = record.data.get("options", {})
                if "back" in record.data:
                    self.back[record.database] = _back(record.data["back"])
            case RecordKind.HELD | RecordKind.COMMITTED if record.database:
                # Where the first record of it is lost, whoever settles the run commits it, and knows no more either.
                if record.kind is RecordKind.HELD or _has_moved(record.data):
                    self.heard.add(record.database)
                if _has_moved(record.data):
                    self.held[record.database] = Held.of(record.data)
            case RecordKind.DECISION:
                self.decisions.append((record.data["scope"], Decision(record.data["decision"])))
            case RecordKind.PREPARING:
                self.gids.add(record.data["gid"])
            case RecordKind.RUN_FINISHED:
                self.has_ended = True

    def may_concern(self, name: str) -> bool:
        """Return whether the run may have begun with a database.

        Before a decision about all of it stands there, nobody knows that the journal has not lost its last records; of
        a run that was adopted nobody ever does.
        """
        # Nothing is committed with which the run has not begun: where no record tells of that, they are lost.
        decided = [made for scope, made in self.decisions if scope == "deploy"]
        is_whole = self.is_known and bool(decided) and (bool(self.tiers) or Decision.COMMIT not in decided)
        return name in self.tiers or (name in self.targets and not is_whole)

    def owns(self, gid: str, phase: Phase) -> bool:
        """Return whether a transaction whose name tells the run's id is this run's, and not another deploy's.

        Whoever has decided has written down before what was prepared. Before that the journal may have lost its end.
        """
        return gid in self.gids or (gid not in self.foreign and self.decided(phase) is None)

    @property
    def moved(self) -> frozenset[str]:
        """The databases on which the run has moved anything, and did not just find nothing to do."""
        return frozenset(name for name, held in self.held.items() if held.steps)

    def was_another(self, name: str, here: Identity) -> bool:
        """Return whether a target of this name was another database in the run than it is here."""
        then = self.identities.get(name)
        return then is not None and here.differs(then)

    def plan_of(self, plan: Plan) -> Plan:
        """Return the plan by the run's name and phases, with what one decision covers, and what a failure does.

        The command that settles a run may be another one, of a single decision, and the file may have been changed.
        """
        commit = self.commit
        if commit is None and (self.takes_back is not None or self.finalises is not None):
            commit = CommitUnit.DEPLOY
        elif commit is None and any(scope != "deploy" for scope, _made in self.decisions):
            commit = CommitUnit.PHASE
        return replace(
            plan,
            name=self.deploy or plan.name,
            phases=self._phases_of(plan),
            commit=commit or plan.commit,
            on_failure=self.on_failure or plan.on_failure,
        )

    def _phases_of(self, plan: Plan) -> tuple[Phase, ...]:
        """Return the run's own phases, of what is still in the plan; a database that came since stays in its phase."""
        as_begun = {
            target.name: target.with_options(self.options.get(target.name, {}))
            for phase in plan.phases
            for target in phase.targets
        }
        if not self.phases:
            return tuple(
                replace(phase, targets=tuple(as_begun[target.name] for target in phase.targets))
                for phase in plan.phases
            )
        then = {name: phase for phase, names in self.phases for name in names}
        members: dict[str, list[Target]] = {phase: [] for phase, _names in self.phases}
        for phase in plan.phases:
            for target in phase.targets:
                members.setdefault(then.get(target.name, phase.name), []).append(as_begun[target.name])
        # What is settled waits for no gate, and all of a phase at once.
        return tuple(
            Phase(name, index, tuple(targets), max(1, len(targets)))
            for index, (name, targets) in enumerate(members.items())
        )

    def halted(self, plan: Plan) -> "Told":
        """Return what a halted run's records say without what was taken back: what phases held that did not commit."""
        back = {
            target.name
            for phase in self.plan_of(plan).phases
            if self.decided(phase, halts=True) is not Decision.COMMIT
            for target in phase.targets
        }
        return replace(self, held={name: held for name, held in self.held.items() if name not in back})

    def decided(self, phase: Phase, *, halts: bool = False) -> Decision | None:
        """Return the last decision about a phase.

        Args:
            phase: which.
            halts: whether a phase that has committed stays so: then a later decision about all is about the others.
        """
        own = next((made for scope, made in reversed(self.decisions) if scope == phase.name), None)
        if halts and own is Decision.COMMIT:
            return own
        return next((made for scope, made in reversed(self.decisions) if scope in {phase.name, "deploy"}), None)


def records_of(deploy: str, records: Iterable[Record]) -> list[Record]:
    """Return one deploy's records of a run id, which the caller may have given to another deploy as well.

    Both may be at work at once. A record that does not say whose it is belongs to the run that began last before it.
    """
    found, is_ours = [], False
    for record in records:
        if record.kind is RecordKind.RUN_STARTED:
            with understood(record.place):
                is_ours = record.data["deploy"] == deploy
        if is_ours if record.deploy is None else record.deploy == deploy:
            found.append(record)
    return found


def _has_moved(data: Mapping[str, Any]) -> bool:
    return bool(data.get("steps") or data.get("contracted"))


def _back(data: Mapping[str, Any]) -> Back:
    steps = tuple(Step(**step) for step in data["steps"])
    return Back(data["run_id"], steps, Received.of(data["received"]), data["discards"])

"""Which crash points a run reaches in each kind of fleet, on its way and on the way back."""

__all__ = [
    "BACK",
    "FLEETS",
    "FORWARD",
    "HALVES",
    "RECOVERY",
    "STRUCK",
    "TAKEN_BACK",
    "UNAPPLYING",
    "UNDECIDED",
    "UNWRITTEN",
]

UNDECIDED = "decide.before"
# The same where no database is the last resource.
UNWRITTEN = "journal.decision.before"

FLEETS = {
    "held": "`held_open` on two servers and on SQLite",
    "prepared": "`two_phase` on two servers, a SQLite file as the last resource",
    "all prepared": "`two_phase` on two servers, with nothing to do in the SQLite file",
    "ahead": "the same, with a column that is filled and an index that is built outside the transactions",
    "phases": '`two_phase` with `commit = "phase"`',
    "steps": "`compensated` on two servers: migrations outside a transaction",
    "joined": "`held_open`, with another alias that joins the call",
    "through workers": "`two_phase`, settled by the workers: the coordinator's driver does not know the options",
    "empty": "`compensated`, databases that were empty",
    "gathered": "the same, with one commit for several migrations and a last one outside a transaction",
    "code": "`compensated`, code of a migration fails outside a transaction",
    "lost": "`held_open`, a migration kills its worker",
}
"""The fleets in which points are visited, in words."""


def _sides(*names: str) -> list[str]:
    """Return the points before and after each of these."""
    return [f"{name}.{side}" for name in names for side in ("before", "after")]


# Which points a run reaches, in the one and in the other fleet.
FORWARD = {
    "held": _sides(
        *("journal.run_started", "journal.phase_started", "journal.intent", "begin", "apply", "journal.held"),
        *("prepare", "journal.decision", "commit", "journal.committed", "journal.run_finished"),
        *("journal.acquire", "ask.inspect", "ask.apply", "lease.acquire", "mark", "ask.prepare", "ask.commit"),
        *("commit_transaction", "lease.release", "journal.release"),
    ),
    # Their SQLite file is the last resource: its commit is the decision.
    "prepared": _sides(
        *("journal.preparing", "prepare", "decide", "commit", "journal.committed", "journal.decision"),
        "commit_prepared",
    ),
    # Their SQLite file has nothing to do.
    "all prepared": _sides("journal.preparing", "prepare", "journal.decision", "commit_prepared", "journal.committed"),
    # The same, with a column that is filled and an index that is built outside their transactions.
    "ahead": [
        *_sides(
            *("journal.intent", "apply", "seal", "journal.step", "begin", "journal.held", "journal.preparing"),
            *("prepare", "journal.decision", "commit_prepared", "journal.committed", "journal.run_finished"),
        ),
        # Its first batch; before comes the row that tells how far it has come.
        *(f"{point}:2" for point in _sides("fill")),
    ],
    "phases": _sides("journal.decision", "commit_prepared", "journal.committed", "journal.run_finished"),
    "steps": _sides(
        *("journal.run_started", "journal.phase_started", "journal.intent", "apply", "seal", "journal.step"),
        *("journal.held", "prepare", "decide", "commit", "journal.committed", "journal.decision"),
        *("journal.run_finished", "operation", "note", "record"),
    ),
    "joined": _sides("commit_alias"),
    "through workers": _sides("ask.settle_prepared", "settle_prepared"),
    # The first seal writes the call down, the second one commits all but the last.
    "gathered": [
        *_sides("apply", "seal", "journal.step", "operation", "record", "journal.held", "prepare", "decide"),
        *(f"{point}:{number}" for number in (2, 3) for point in _sides("apply", "seal", "note")),
    ],
}
BACK = {
    "held": _sides(
        *("journal.decision", "rollback", "journal.rolled_back", "journal.run_finished"),
        *("ask.rollback", "rollback_transaction"),
    ),
    "prepared": _sides("journal.decision", "rollback", "journal.rolled_back"),
    "ahead": _sides("journal.decision", "rollback", "unapply", "journal.unstep", "journal.rolled_back"),
    "phases": [
        *_sides("journal.decision", "unapply", "journal.unstep", "journal.rolled_back", "journal.run_finished"),
        *(f"{point}:2" for point in _sides("unapply", "journal.unstep")),
        *_sides("undo", "undo_commit", "unmark", "restore"),
    ],
    "steps": _sides(
        *("journal.decision", "rollback", "unapply", "journal.unstep", "journal.rolled_back", "journal.run_finished"),
        *("reverse", "restore", "note"),
    ),
    "joined": _sides("rollback_alias"),
    "empty": _sides("make_empty"),
    "gathered": _sides("make_empty"),
}
# On the way back from what fails by itself, or kills its worker.
STRUCK = {"code": _sides("settle", "give_back", "reverse", "restore", "note"), "lost": _sides("end_session")}
# On the way of a rollback alone.
UNAPPLYING = {"held": _sides("remove_received", "unmark")}
# What joins a call from another alias was never a part of its target. An index that was built outside a transaction is
# dropped outside one; and a rollback knows no phases of its own, and gathers nothing.
_ON_THE_WAY_ALONE = {"joined", "ahead", "phases", "gathered"}
TAKEN_BACK = {kind: points for kind, points in FORWARD.items() if kind not in _ON_THE_WAY_ALONE}
# What runs in halves, by command.
HALVES = {
    "deploy": _sides("queue"),
    "rollback": _sides("dequeue", "discard"),
    "finalise": _sides("contract", "dequeue", "lay", "seal"),
    "recover": _sides("lift"),
}
# Where the coordinator is killed, and then what its recovery does.
RECOVERY = {
    ("prepared", UNDECIDED): _sides(
        "journal.decision", "rollback_prepared", "journal.rolled_back", "journal.run_finished"
    ),
    ("prepared", "journal.decision.after"): _sides("commit_prepared", "journal.committed", "journal.run_finished"),
    ("ahead", UNWRITTEN): _sides(
        *("journal.decision", "rollback_prepared", "unapply", "journal.unstep", "journal.rolled_back"),
        "journal.run_finished",
    ),
    ("ahead", "journal.decision.after"): _sides("commit_prepared", "journal.committed", "journal.run_finished"),
    ("held", "journal.decision.after"): _sides(
        *("ask.look", "end_sessions", "begin", "apply", "commit", "journal.committed", "journal.run_finished")
    ),
    ("steps", UNDECIDED): _sides(
        *("journal.decision", "ask.undo", "unapply", "journal.unstep", "reverse", "restore", "note"),
        *("journal.rolled_back", "journal.run_finished"),
    ),
    ("steps", "decide.after"): _sides("journal.decision", "commit", "journal.committed", "journal.run_finished"),
}

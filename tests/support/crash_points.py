"""Which crash points a run reaches in each kind of fleet, on its way and on the way back."""

__all__ = ["BACK", "FORWARD", "STRUCK", "UNAPPLYING", "sides"]


def sides(*names: str) -> list[str]:
    """Return the points before and after each of these."""
    return [f"{name}.{side}" for name in names for side in ("before", "after")]


# Which points a run reaches, in the one and in the other fleet.
FORWARD = {
    "held": sides(
        *("journal.run_started", "journal.phase_started", "journal.intent", "begin", "apply", "journal.held"),
        *("prepare", "journal.decision", "commit", "journal.committed", "journal.run_finished"),
        *("journal.acquire", "ask.inspect", "ask.apply", "lease.acquire", "mark", "ask.prepare", "ask.commit"),
        *("commit_transaction", "lease.release", "journal.release"),
    ),
    # Their SQLite file is the last resource: its commit is the decision.
    "prepared": sides(
        *("journal.preparing", "prepare", "decide", "commit", "journal.committed", "journal.decision"),
        "commit_prepared",
    ),
    # Their SQLite file has nothing to do.
    "all prepared": sides("journal.preparing", "prepare", "journal.decision", "commit_prepared", "journal.committed"),
    # The same, with an index that is built outside their transactions.
    "ahead": sides(
        *("journal.intent", "apply", "seal", "journal.step", "begin", "journal.held", "journal.preparing", "prepare"),
        *("journal.decision", "commit_prepared", "journal.committed", "journal.run_finished"),
    ),
    "phases": sides("journal.decision", "commit_prepared", "journal.committed", "journal.run_finished"),
    "steps": sides(
        *("journal.run_started", "journal.phase_started", "journal.intent", "apply", "seal", "journal.step"),
        *("journal.held", "prepare", "decide", "commit", "journal.committed", "journal.decision"),
        *("journal.run_finished", "operation", "note"),
    ),
    "joined": sides("commit_alias"),
    "through workers": sides("ask.settle_prepared", "settle_prepared"),
}
BACK = {
    "held": sides(
        *("journal.decision", "rollback", "journal.rolled_back", "journal.run_finished"),
        *("ask.rollback", "rollback_transaction"),
    ),
    "prepared": sides("journal.decision", "rollback", "journal.rolled_back"),
    "ahead": sides("journal.decision", "rollback", "unapply", "journal.unstep", "journal.rolled_back"),
    "phases": [
        *sides("journal.decision", "unapply", "journal.unstep", "journal.rolled_back", "journal.run_finished"),
        *(f"{point}:2" for point in sides("unapply", "journal.unstep")),
        *sides("undo", "unmark", "restore"),
    ],
    "steps": sides(
        *("journal.decision", "rollback", "unapply", "journal.unstep", "journal.rolled_back", "journal.run_finished"),
        *("reverse", "restore", "note"),
    ),
    "joined": sides("rollback_alias"),
    "empty": sides("make_empty"),
}
# On the way back from what fails by itself, or kills its worker.
STRUCK = {"code": sides("settle", "give_back", "reverse", "restore", "note"), "lost": sides("end_session")}
# On the way of a rollback alone.
UNAPPLYING = {"held": sides("remove_received", "unmark")}

"""What a lease has to say to those who do not have it."""

from datetime import datetime

from smooth_migrations.errors import SmoothMigrationsError
from smooth_migrations.protocol.owner import Holder

__all__ = ["LeaseHeld", "LeaseLost", "SessionLeft"]


class LeaseHeld(SmoothMigrationsError):  # noqa: N818 - named by what happened
    """Another process holds the lease; nothing ran.

    Attributes:
        holder: which one.
        in_transaction: its turn is over, but a transaction of its still stands on the server, perhaps a prepared one.
    """

    def __init__(self, alias: str, holder: Holder, *, in_transaction: bool = False) -> None:
        silent = "; its turn is over, but a transaction of its has not ended" if in_transaction else ""
        super().__init__(
            f"another run holds the lease of the database {alias!r}: {holder}{silent}",
            hint="settle or end that transaction" if in_transaction else "wait for it, or end that process",
        )
        self.holder = holder
        self.in_transaction = in_transaction

    @property
    def host(self) -> str:
        """The holder's host."""
        return self.holder.owner.host

    @property
    def pid(self) -> int:
        """The holder's process id there."""
        return self.holder.owner.pid

    @property
    def since(self) -> datetime:
        """Since when it is held."""
        return self.holder.since


class LeaseLost(SmoothMigrationsError):  # noqa: N818 - named by what happened
    """The lease went to somebody else, or was released: whoever is told must not commit.

    Attributes:
        holder: who has it, or had it last; None if its row is gone.
    """

    def __init__(self, alias: str, holder: Holder | None) -> None:
        who = f" to {holder}" if holder else ""
        super().__init__(f"the lease of the database {alias!r} was lost{who}; nothing more is committed")
        self.holder = holder


class SessionLeft(SmoothMigrationsError):  # noqa: N818 - named by what happened
    """The turn of an earlier run is over, but its session is still at work, and cannot be ended; nothing ran.

    Attributes:
        session: as the server numbers it; None where it changes too fast to be named.
    """

    def __init__(self, alias: str, session: int | None) -> None:
        super().__init__(
            f"session {session} is still at work on the database {alias!r} for an earlier run, and could not be "
            f"ended (KILL {session})",
            hint="end it as a user who may, or wait until it has ended",
        )
        self.session = session

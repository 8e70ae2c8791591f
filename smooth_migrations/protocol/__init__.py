"""The messages between a coordinator and its workers: one JSON object a line.

This module is the only thing that the two packages share. It needs nothing but the standard library, because a
worker may run another Python and another Django than its coordinator. Adding a field with a default is compatible;
anything else raises `PROTOCOL`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from smooth_migrations.protocol.commands import (
        Apply,
        AskCode,
        Cancel,
        Command,
        Commit,
        Copy,
        Fetch,
        Inspect,
        Lint,
        Look,
        Prepare,
        Rollback,
        SettlePrepared,
        Stop,
        Undo,
    )
    from smooth_migrations.protocol.events import (
        Code,
        Copied,
        Done,
        Event,
        Failed,
        Hello,
        Leased,
        Linted,
        LockRetry,
        MigrationApplied,
        MigrationFailed,
        MigrationStarted,
        MigrationUnapplied,
        Progress,
        Rows,
        Session,
        Standing,
        Stepping,
        TargetReport,
        UnapplyFailed,
    )
    from smooth_migrations.protocol.failures import ErrorInfo
    from smooth_migrations.protocol.findings import (
        DatabaseFacts,
        HeldLock,
        Measured,
        MigrationFinding,
        PendingMigration,
        Question,
        Rewritten,
    )
    from smooth_migrations.protocol.linting import LintReport
    from smooth_migrations.protocol.values import (
        Back,
        Before,
        ContractHalf,
        Left,
        Marker,
        OtherAliases,
        PreparedTransaction,
        Received,
        Step,
    )
    from smooth_migrations.protocol.wire import (
        PROTOCOL,
        ProtocolError,
        decode,
        encode,
    )

__all__ = [
    "PROTOCOL",
    "Apply",
    "AskCode",
    "Back",
    "Before",
    "Cancel",
    "Code",
    "Command",
    "Commit",
    "ContractHalf",
    "Copied",
    "Copy",
    "DatabaseFacts",
    "Done",
    "ErrorInfo",
    "Event",
    "Failed",
    "Fetch",
    "HeldLock",
    "Hello",
    "Inspect",
    "Leased",
    "Left",
    "Lint",
    "LintReport",
    "Linted",
    "LockRetry",
    "Look",
    "Marker",
    "Measured",
    "MigrationApplied",
    "MigrationFailed",
    "MigrationFinding",
    "MigrationStarted",
    "MigrationUnapplied",
    "OtherAliases",
    "PendingMigration",
    "Prepare",
    "PreparedTransaction",
    "Progress",
    "ProtocolError",
    "Question",
    "Received",
    "Rewritten",
    "Rollback",
    "Rows",
    "Session",
    "SettlePrepared",
    "Standing",
    "Step",
    "Stepping",
    "Stop",
    "TargetReport",
    "UnapplyFailed",
    "Undo",
    "decode",
    "encode",
]

_MODULES = ("values", "failures", "findings", "linting", "commands", "events", "wire")


def __getattr__(name: str) -> object:
    # Making this many dataclasses takes 15 ms, and `manage.py apply_migrations` needs a few values alone.
    for part in _MODULES:
        module = import_module(f"{__name__}.{part}")
        if name in module.__all__:
            # Where it is found by itself the next time.
            globals()[name] = getattr(module, name)
            return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

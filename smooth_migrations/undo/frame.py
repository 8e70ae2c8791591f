"""What a call begins with, as its undo must know it, and as the journal keeps it."""

from dataclasses import asdict, dataclass
from typing import Any

from smooth_migrations.protocol.values import Before, Received
from smooth_migrations.undo.records import Record

__all__ = ["Frame", "packed", "unpacked"]


@dataclass(frozen=True, slots=True)
class Frame:
    """What a call began with, and what it makes outside of its migrations.

    Args:
        before: what the database was like.
        records: the rows of `django_migrations`; None where they were not taken.
        synced: tables of apps without migrations that were to be made.
        fingerprint: of the schema, packed, to which an undo is compared; empty where nobody took it.
        received: what receivers of post_migrate made, of a call that had ended and is taken back; None of any other.
        groundwork: what it makes ready for its statements: tables, and the names of constraints or indexes on them.
    """

    before: Before
    records: tuple[Record, ...] | None = None
    synced: frozenset[str] = frozenset()
    fingerprint: str = ""
    received: Received | None = None
    groundwork: tuple[tuple[str, str], ...] = ()

    @property
    def is_finished(self) -> bool:
        """Whether the call had ended before it was taken back, with its writes to other aliases."""
        return self.received is not None


def packed(frame: Frame) -> dict[str, Any]:
    """Return what JSON can hold."""
    records = None if frame.records is None else [asdict(record) for record in frame.records]
    return {
        "before": asdict(frame.before),
        "records": records,
        "synced": sorted(frame.synced),
        "fingerprint": frame.fingerprint,
        "received": None if frame.received is None else asdict(frame.received),
        "groundwork": frame.groundwork,
    }


def unpacked(detail: dict[str, Any]) -> Frame:
    """Return what was packed."""
    before, records, received = detail["before"], detail["records"], detail.get("received")
    return Frame(
        Before(
            is_empty=before["is_empty"],
            has_records=before["has_records"],
            extensions=tuple(before["extensions"]),
            schemas=tuple(before["schemas"]),
        ),
        None if records is None else tuple(Record(**record) for record in records),
        frozenset(detail["synced"]),
        detail.get("fingerprint", ""),
        None if received is None else Received.of(received),
        tuple((table, name) for table, name in detail.get("groundwork", ())),
    )

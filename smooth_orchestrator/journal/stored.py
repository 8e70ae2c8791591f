"""What stands in a journal, read back; a record that is damaged is named by its place. Pure."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final

from smooth_orchestrator.errors import JournalError
from smooth_orchestrator.journal.base import Record, RecordKind, RunSummary

__all__ = ["JournalDamaged", "read_record", "read_summary", "summary_of", "understood"]

# The columns of a record.
_WIDTH: Final = 7

_HINT: Final = (
    "restore the journal from a backup; or move it away, and `smooth-orchestrate recover PLAN` settles what the "
    "databases show"
)

# Of what a record holds, where it holds it: what is read of it further on is read within `understood`.
_TYPES: Final[Mapping[RecordKind, Mapping[str, type]]] = {
    RecordKind.RUN_STARTED: {
        **dict.fromkeys(("deploy", "command", "digest", "commit", "on_failure", "takes_back"), str),
        **dict.fromkeys(("targets", "phases", "finalises", "missing"), list),
        "identities": dict,
        "adopted": bool,
    },
    RecordKind.INTENT: {"tier": str, "back": dict},
    RecordKind.HELD: {"steps": list, "before": dict, "received": dict},
    RecordKind.PREPARING: {"gid": str},
    RecordKind.COMMITTED: {"steps": list, "before": dict, "received": dict},
    RecordKind.DECISION: {"decision": str, "scope": str},
    RecordKind.RUN_FINISHED: {"outcome": str, "exit_code": int, "report": dict},
}


class JournalDamaged(JournalError):  # noqa: N818 - named by what happened
    """A record does not say what one of its kind says; nothing is decided by its journal."""

    code = "journal_damaged"


@contextmanager
def understood(place: str) -> Iterator[None]:
    """Have what a damaged record makes its reader raise say where that record stands.

    Args:
        place: the journal's, and the record's in it.

    Raises:
        JournalDamaged: what is read within is not as this program, or an earlier version of it, has written it.
    """
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        words = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        raise JournalDamaged(f"{place} is damaged: {words}", hint=_HINT) from error


def read_record(journal: str, row: Sequence[Any]) -> Record:
    """Return a record as it was written.

    Args:
        journal: its place, without a password.
        row: number, time, run, kind, target, data and deploy, as they stand there.

    Raises:
        JournalDamaged: nobody has written it so.
    """
    seq, at, run_id, kind, database, data, deploy = row
    place = f"{journal}: record {seq}"
    with understood(place):
        if kind not in {*RecordKind}:
            raise ValueError(f"this program knows no records of the kind {kind!r}")
        content = json.loads(data)
        _check(content, dict, "it")
        for key, wanted in _TYPES.get(kind, {}).items():
            if content.get(key) is not None:
                _check(content[key], wanted, repr(key))
        moment = at if isinstance(at, datetime) else datetime.fromisoformat(at)
        return Record(seq, moment, run_id, RecordKind(kind), database, content, deploy, place)


def read_summary(journal: str, row: Sequence[Any]) -> RunSummary:
    """Return what the first record of a run and the last one, where there is one, make.

    Args:
        journal: its place, without a password.
        row: the columns of both, one after the other.

    Raises:
        JournalDamaged: nobody has written one of them so.
    """
    opening, ending = row[:_WIDTH], row[_WIDTH:]
    closing = read_record(journal, ending) if ending[0] is not None else None
    return summary_of(read_record(journal, opening), closing)


def summary_of(opening: Record, closing: Record | None) -> RunSummary:
    """Return what the first record of a run and the last one make.

    Raises:
        JournalDamaged: they say less than such records do.
    """
    with understood((closing or opening).place):
        error = (closing.data.get("report") or {}).get("error") if closing else None
        if error is not None:
            _check(error, dict, "'error'")
            _check(error.get("message"), str, "'message'")
    with understood(opening.place):
        return RunSummary.of(
            opening.run_id, (opening.at, opening.data), (closing.at, closing.data) if closing else None
        )


def _check(value: object, wanted: type, name: str) -> None:
    if not isinstance(value, wanted):
        raise TypeError(f"{name} is of the type {type(value).__name__}, and not {wanted.__name__}")

"""What stands prepared in a plan's databases and beside them: this deploy's, other deploys', other programs'. Pure.

Nothing here ends a transaction. `recover` ends those of its deploy, and nothing ends those of another program.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from smooth_migrations.protocol import PreparedTransaction
from smooth_orchestrator.prepared import run_of
from smooth_orchestrator.run import TargetRun

__all__ = ["Doubts", "Whose", "doubts_of"]


class Whose(StrEnum):
    """Who prepared a transaction."""

    OURS = "this_deploy"
    UNKNOWN = "another_deploy"
    FOREIGN = "another_program"


@dataclass(frozen=True, slots=True)
class Doubts:
    """What stands prepared, as far as it concerns one target.

    Args:
        here: in its database.
        elsewhere: in databases of its server that are not the plan's; told of the plan's first target there alone.
    """

    here: tuple[PreparedTransaction, ...] = ()
    elsewhere: tuple[PreparedTransaction, ...] = ()

    @property
    def run_ids(self) -> set[str]:
        """The runs that prepared them."""
        return {run_id for each in (*self.here, *self.elsewhere) if (run_id := run_of(each.gid)) is not None}

    def to_dict(self, known: Collection[str]) -> dict[str, Any]:
        """Return a report's keys: `in_doubt`, in words, for this program's; the others for all of it, by parts.

        Args:
            known: the runs of which this deploy's journal tells.
        """
        return {
            "in_doubt": [_words(each, known) for each in self.here if run_of(each.gid) is not None],
            "prepared": [_parts(each, known) for each in self.here],
            "prepared_elsewhere": [_parts(each, known) for each in self.elsewhere],
        }


def doubts_of(targets: Sequence[TargetRun]) -> list[Doubts]:
    """Return what stands prepared in each target's database, and beside them.

    Args:
        targets: all of the plan, looked at; of one that does not answer nothing is known.
    """
    # A server gives a name once, whatever the database.
    told = {(item.target.server, each.gid) for item in targets for each in _found(item) if each.is_here}
    doubts = []
    for item in targets:
        beside = {(item.target.server, each.gid): each for each in _found(item) if not each.is_here}
        elsewhere = [each for key, each in beside.items() if key not in told]
        told |= beside.keys()
        doubts.append(Doubts(tuple(each for each in _found(item) if each.is_here), tuple(elsewhere)))
    return doubts


def _found(item: TargetRun) -> tuple[PreparedTransaction, ...]:
    return item.found.prepared if item.found else ()


def _whose(each: PreparedTransaction, known: Collection[str]) -> Whose:
    run_id = run_of(each.gid)
    if run_id is None:
        return Whose.FOREIGN
    return Whose.OURS if run_id in known else Whose.UNKNOWN


def _words(each: PreparedTransaction, known: Collection[str]) -> str:
    unknown = ", by a run that this deploy's journal does not know" if _whose(each, known) is Whose.UNKNOWN else ""
    return f"{each.gid}, prepared {each.age_s} s ago by {each.owner}{unknown}"


def _parts(each: PreparedTransaction, known: Collection[str]) -> dict[str, Any]:
    return {
        "gid": each.gid,
        "database": each.database,
        "owner": each.owner,
        "age_s": each.age_s,
        "whose": str(_whose(each, known)),
    }

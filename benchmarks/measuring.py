"""Time two ways to do the same work in turns, and compare them as a ratio."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Protocol

from benchmarks.processes import watched

__all__ = ["Benchmark", "Measurement", "Run", "measure", "timed"]


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one side.

    Args:
        duration_s: wall clock of its processes.
        left: the migrations recorded afterwards, by database; both sides must leave the same.
        beside: other times that it tells of, in seconds, by what they are.
        memory_mb: the most that its processes had in RAM together, in MiB; 0 where nobody looked.
    """

    duration_s: float
    left: Mapping[str, frozenset[str]]
    beside: Mapping[str, float] = field(default_factory=dict)
    memory_mb: float = 0.0


class Benchmark(Protocol):
    """The same work done by the product and by its peer."""

    @property
    def name(self) -> str:
        """What it is chosen by, such as `deploy/from-zero`."""

    def prepare(self) -> None:
        """Put the databases to where every run begins; not timed."""

    def run_ours(self) -> Run:
        """Do the work with the product."""

    def run_peer(self) -> Run:
        """Do the work with what a user would do without the product."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What the runs of one benchmark took.

    Args:
        name: of the benchmark.
        ours_s: the product's times, in the order of the runs.
        peer_s: the peer's; each run stood beside the product's run of the same index.
        beside: the same of the other times that the runs tell of.
        memory_mb: the most memory that the product had in any run, in MiB; 0 where nobody looked.
    """

    name: str
    ours_s: tuple[float, ...]
    peer_s: tuple[float, ...]
    beside: "tuple[Measurement, ...]" = ()
    memory_mb: float = 0.0

    @property
    def ratios(self) -> tuple[float, ...]:
        """The product's time over the peer's, pair by pair; a machine that slows down slows both of a pair."""
        return tuple(ours / peer for ours, peer in zip(self.ours_s, self.peer_s, strict=True))

    @property
    def ratio(self) -> float:
        """The median of the ratios: below 1 the product is the faster one."""
        return median(self.ratios)


def measure(benchmark: Benchmark, repeat: int) -> Measurement:
    """Run both sides in turns, after one pair that fills the caches and is not counted.

    Args:
        benchmark: what to run.
        repeat: how many pairs count.

    Raises:
        RuntimeError: a run failed, or left other migrations than the runs before it.
    """
    runs: dict[str, list[Run]] = {"ours": [], "peer": []}
    sides: list[tuple[str, Callable[[], Run]]] = [("ours", benchmark.run_ours), ("peer", benchmark.run_peer)]
    expected = None
    for _ in range(1 + repeat):
        for side, run in sides:
            benchmark.prepare()
            result = run()
            expected = result.left if expected is None else expected
            if result.left != expected:
                others = sorted(key for key in {*expected, *result.left} if expected.get(key) != result.left.get(key))
                raise RuntimeError(
                    f"{benchmark.name}: {side} left other migrations than the runs before it, in {', '.join(others)}"
                )
            runs[side].append(result)
        # Neither side is always the one that follows the other.
        sides.reverse()
    ours, peer = (runs[side][1:] for side in ("ours", "peer"))
    ours_s, peer_s = (tuple(run.duration_s for run in side) for side in (ours, peer))
    memory_mb = max((run.memory_mb for run in ours), default=0.0)
    return Measurement(benchmark.name, ours_s, peer_s, tuple(_beside(benchmark.name, ours, peer)), memory_mb)


def _beside(name: str, ours: Sequence[Run], peer: Sequence[Run]) -> Iterator[Measurement]:
    for what in ours[0].beside:
        ours_s, peer_s = (tuple(run.beside[what] for run in side) for side in (ours, peer))
        yield Measurement(f"{name}/{what}", ours_s, peer_s)


def timed(argv: Sequence[str], *, cwd: Path, env: Mapping[str, str]) -> float:
    """Run a command to its end and return its seconds of wall clock.

    Args:
        argv: the command line.
        cwd: where it runs.
        env: what it finds in its environment beside this process's.

    Raises:
        RuntimeError: it failed; with what it printed.
    """
    return watched(argv, cwd=cwd, env=env).duration_s

"""`lint`: what migration files would do to two live releases; no database is needed."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from smooth_migrations.protocol import Failed, Lint, Linted, LintReport
from smooth_orchestrator.config import PlanFile
from smooth_orchestrator.errors import Mistake, Refused
from smooth_orchestrator.plan import Target
from smooth_orchestrator.secrets import Masker
from smooth_orchestrator.session import ready
from smooth_orchestrator.signals import hearing_signals

__all__ = ["lint"]


async def lint(file: PlanFile, *, masker: Masker, since: str | None, everything: bool) -> tuple[LintReport, ...]:
    """Look at the migrations of a plan's projects, for the first database of each of its entries. Changes nothing.

    Args:
        file: the plan.
        masker: learns the secrets that projects tell.
        since: look at what was changed or added since this revision of Git; None for what is pending.
        everything: look at every migration, each as a deploy by itself.

    Raises:
        PlanInvalid: the plan contradicts the projects' settings.
        Refused: migrations cannot be read, or there is no such revision.
        WorkerError: a worker cannot be started.
    """
    reports: list[LintReport] = []
    findings: list[Mistake] = []
    async with hearing_signals(), ready(file, masker) as prepared:
        for target in _one_each(prepared.plan.targets):
            worker = prepared.fleet.serving(target)
            command = Lint(
                id=worker.next_id(),
                database=target.name,
                alias=target.alias,
                since=since,
                everything=everything,
                expands=target.expand_contract,
            )
            answer = await worker.call(command)
            if isinstance(answer, Linted):
                reports.append(replace(answer.report, database=target.name))
            elif isinstance(answer, Failed):
                findings.append(Mistake(target.name, answer.error.message, answer.error.hint))
    if findings:
        raise Refused("the migrations cannot be looked at", findings=findings)
    return tuple(reports)


def _one_each(targets: Iterable[Target]) -> Iterator[Target]:
    """Yield the first target of each entry of the plan: what one glob names is alike."""
    seen: set[str] = set()
    for target in targets:
        entry = target.name.partition(":")[0]
        if entry not in seen:
            seen.add(entry)
            yield target

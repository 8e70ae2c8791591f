"""The report of one run with a page for a browser beside it."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from smooth_orchestrator import logs
from smooth_orchestrator.cli.execution import execute, write_report
from smooth_orchestrator.cli.options import Invocation
from smooth_orchestrator.events import EventName
from smooth_orchestrator.page.account import Account
from smooth_orchestrator.page.document import TemplatesMissing, page_of
from smooth_orchestrator.report import RunOutcome
from smooth_orchestrator.settling import told_how_to_settle
from smooth_orchestrator.whole_file import write_whole

if TYPE_CHECKING:
    from smooth_orchestrator.config import PlanFile
    from smooth_orchestrator.secrets import Masker

__all__ = ["report_with_page"]


def report_with_page(invocation: Invocation, run_id: str | None, page: Path) -> int:
    """Write one run's report to stdout and its page to a file.

    Args:
        invocation: the command.
        run_id: the run; the newest that has ended unless given.
        page: the file.

    Returns:
        The exit code: the run's, and 2 where the file could not be written.
    """

    async def work(file: "PlanFile", masker: "Masker") -> Account:
        del masker
        from smooth_orchestrator import history  # noqa: PLC0415 - a bad plan's report waits for no database driver

        return await history.account(file, run_id=run_id)

    def show(account: Account, masker: "Masker") -> int:
        told = replace(account, report=told_how_to_settle(account.report, invocation.plan)).masked(masker)
        is_written = _write_page(told, masker.text(str(invocation.plan)), page)
        exit_code = write_report(told.report, as_json=invocation.as_json, plan=invocation.plan)
        return exit_code if is_written else RunOutcome.INVALID.exit_code

    return execute(invocation, work, show)


def _write_page(account: Account, plan: str, page: Path) -> bool:
    try:
        write_whole(page, page_of(account, plan))
    except (OSError, TemplatesMissing) as error:
        why = error.strerror or str(error) if isinstance(error, OSError) else f"{error}; {error.hint}"
        message = f"--html {page}: the page could not be written: {why}"
        logs.get_logger().error(EventName.LOG_MESSAGE, logger="report", message=message)
        return False
    return True

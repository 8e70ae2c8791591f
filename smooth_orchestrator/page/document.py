"""Write the page: what it shows is counted here, and how it looks stands in the files beside this one."""

import base64
import hashlib
import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from smooth_orchestrator import __version__
from smooth_orchestrator.console import printable
from smooth_orchestrator.errors import SmoothError
from smooth_orchestrator.page.account import Account
from smooth_orchestrator.page.lanes import LEGEND, Axis
from smooth_orchestrator.page.problems import longest_text, problems_of
from smooth_orchestrator.page.rows import OUTCOMES, held_back, moved_alike, rows_of
from smooth_orchestrator.page.wording import clipped, counted, moment_text, names_text
from smooth_orchestrator.render import duration_text, near_text, state_of
from smooth_orchestrator.report import RunOutcome
from smooth_orchestrator.sqlstates import in_words
from smooth_orchestrator.summary import next_step, since_then

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["TemplatesMissing", "page_of"]

_HERE: Final = Path(__file__).parent
_LONGEST_SENTENCE: Final = 300

# The colour of a run's outcome, and its sign for those who do not see colours.
_TONES: Final = {
    RunOutcome.COMMITTED: "good",
    RunOutcome.NOTHING_TO_DO: "good",
    RunOutcome.NOT_DUE: "good",
    RunOutcome.ROLLED_BACK: "warn",
    RunOutcome.LOCKED: "warn",
    RunOutcome.REFUSED: "warn",
}
_SIGNS: Final = {"good": "✓", "warn": "↺", "bad": "!"}


class TemplatesMissing(SmoothError):  # noqa: N818 - named by what is so
    """The library that fills the page in is not installed."""

    code = "jinja2_missing"
    exit_code = 2


def page_of(account: Account, plan: str) -> str:
    """Return the page of a run: HTML whose style and script are its own, and which a browser lets ask for nothing else.

    Args:
        account: what is known of the run; masked.
        plan: the plan file, for the commands on the page.

    Raises:
        TemplatesMissing: jinja2 is not installed.
    """
    report, timeline = account.report, account.timeline
    axis = Axis.of(timeline)
    problems, more_problems = problems_of(report)
    lists = moved_alike(account)
    halves, more_halves = held_back(account)
    style, script = (_HERE.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    rules = axis.rules() if axis else ""
    tone = _TONES.get(report.outcome, "bad")
    kinds = {span.kind for spans in timeline.spans.values() for span in spans}
    counts = Counter(each.outcome for each in report.databases)
    return (
        _environment()
        .get_template("page.html.jinja")
        .render(
            account=account,
            axis=axis,
            window=axis and axis.window,
            counts=[(str(outcome), OUTCOMES[outcome], counts[outcome]) for outcome in OUTCOMES if counts[outcome]],
            halves=halves,
            legend=[bar for bar in LEGEND if bar.kind in kinds],
            lists=lists,
            longest=longest_text(len(problems)),
            more_halves=more_halves,
            more_problems=more_problems,
            outcome=str(report.outcome).replace("_", " "),
            plan=shlex.quote(plan),
            problems=problems,
            report=report,
            rows=[*rows_of(account, axis, lists, problems)],
            rules=rules,
            rules_hash=_hash(rules),
            script=script,
            script_hash=_hash(script),
            sign=_SIGNS[tone],
            since=[*since_then(report)],
            step=next_step(report, plan),
            state=clipped(state_of(report), _LONGEST_SENTENCE),
            style=style,
            style_hash=_hash(style),
            timeline=timeline,
            tone=tone,
            total=len(report.databases),
            version=__version__,
        )
    )


def _environment() -> "Environment":
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415 - no other command needs it
    except ImportError as error:
        raise TemplatesMissing("jinja2 is not installed", hint="pip install jinja2") from error
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_inert,
    )
    environment.filters |= {
        "clip": clipped,
        "counted": counted,
        "duration": duration_text,
        "in_words": in_words,
        "moment": moment_text,
        "names": names_text,
        "near": near_text,
    }
    return environment


def _inert(value: Any) -> Any:  # noqa: ANN401 - whatever an expression of the template gives
    """Escape what a browser would obey rather than show: control characters, and those that turn the direction."""
    return printable(value) if type(value) is str else value


def _hash(text: str) -> str:
    """Return what the page's policy calls a text that may style it or be run."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"

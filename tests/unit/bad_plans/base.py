"""How a bad plan is described and written."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from smooth_migrations.protocol import DatabaseFacts
from smooth_orchestrator.plan import ProjectFacts

ALIASES = ("default", "shard_1", "shard_2", "reports", "reports_too")

SETTINGS = """\
from pathlib import Path

HERE = Path(__file__).parent


def sqlite(name):
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": HERE / f"{name}.sqlite3"}


SECRET_KEY = "of no use"
INSTALLED_APPS = []
DATABASES = {name: sqlite(name) for name in ("default", "shard_1", "shard_2", "reports")}
DATABASES["reports_too"] = sqlite("reports")
"""

FACTS = {
    "shop": ProjectFacts(
        tuple(DatabaseFacts(alias, "sqlite", f"/shop/{alias.removesuffix('_too')}.sqlite3") for alias in ALIASES),
        has_routers=False,
    )
}

HEAD = """\
version = 1

[deploy]
name = "shop"
"""

PROJECT = """
[projects.shop]
path = "shop"
settings = "shop.settings"
"""

PRIMARY = """
[databases.primary]
project = "shop"
alias = "default"
"""

SHARDS = """
[databases.shards]
project = "shop"
aliases = "shard_*"
"""


@dataclass(frozen=True, slots=True)
class BadPlan:
    """One plan that must be refused.

    Args:
        id: what is wrong with it.
        content: of the plan file; or what puts something else in its place, given the path.
        expected: `place: message` of every mistake, in order.
        needs_django: whether only the project's settings show the mistake.
    """

    id: str
    content: str | bytes | Callable[[Path], object]
    expected: tuple[str, ...]
    needs_django: bool = False


def make(case: BadPlan, directory: Path) -> Path:
    """Write the case's plan and its project, and return the plan's path."""
    package = directory / "shop" / "shop"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "settings.py").write_text(SETTINGS)
    plan = directory / "deploy.toml"
    if isinstance(case.content, bytes):
        plan.write_bytes(case.content)
    elif isinstance(case.content, str):
        plan.write_text(case.content)
    else:
        case.content(plan)
    return plan


def bad(name: str, content: str | bytes | Callable[[Path], object], *expected: str) -> BadPlan:
    return BadPlan(name, content, expected)


def meaningless(name: str, content: str, *expected: str) -> BadPlan:
    return BadPlan(name, content, expected, needs_django=True)


def deploy(line: str) -> str:
    """Return a plan, good but for one line in [deploy]."""
    return HEAD + line + "\n" + PROJECT + PRIMARY


def project(line: str) -> str:
    return HEAD + PROJECT + line + "\n" + PRIMARY


def database(line: str) -> str:
    return HEAD + PROJECT + PRIMARY + line + "\n"


def phases(*tables: str, databases: str = PRIMARY) -> str:
    return HEAD + PROJECT + databases + "".join(f"\n[[phases]]\n{table}\n" for table in tables)


CANARY = 'name = "canary"\ndatabases = ["primary"]'

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
PACKAGES: Final = ("smooth_migrations", "smooth_orchestrator")
SHARED: Final = ("smooth_migrations.protocol", "smooth_migrations.lint.outputs")
HOOKS: Final = "smooth_migrations.hooks"
ASKED_FOR: Final = "smooth_migrations.backfill"
MAX_LINES: Final = 400

# From the highest layer down. A module imports within its own layer and below it, never above.
LAYERS: Final = (
    frozenset({"__main__", "cli"}),
    frozenset({"api"}),
    frozenset({"runner"}),
    frozenset(
        {
            "doubts",
            "finalisation",
            "history",
            "initial",
            "linting",
            "looks",
            "metrics",
            "rehearsal",
            "reversal",
            "session",
            "traces",
            "waiting",
        }
    ),
    frozenset(
        {
            "applying",
            "barrier",
            "by_hand",
            "commits",
            "decision",
            "earlier_use",
            "last_resource",
            "losing",
            "lost_tail",
            "phases",
            "preflight",
            "preparation",
            "recovery",
            "room",
            "saga",
            "same_files",
            "sight",
        }
    ),
    frozenset(
        {
            "embedding",
            "fleet",
            "gates",
            "glances",
            "lease",
            "leash",
            "remote",
            "prepared",
            "reach",
            "reads",
            "resting",
            "run",
            "signals",
            "silence",
            "schema",
            "settled",
            "standby",
            "standing",
            "testing",
            "transport",
            "whose",
        }
    ),
    frozenset(
        {
            "console",
            "event_words",
            "events",
            "journal",
            "log_file",
            "log_outputs",
            "logs",
            "page",
            "progress",
            "render",
            "report",
            "rules",
            "runbooks",
            "secrets",
            "settling",
            "sqlstates",
            "stuck",
            "summary",
            "tables",
            "timeline",
            "told",
            "watching",
        }
    ),
    frozenset(
        {
            "asking",
            "config",
            "correspondents",
            "described",
            "documents",
            "head_start",
            "references",
            "durations",
            "ending",
            "errors",
            "identity",
            "leisure",
            "matching",
            "places",
            "plan",
            "run_ids",
            "suggestions",
            "trust",
            "whole_file",
        }
    ),
)


def modules(package: str) -> list[str]:
    return sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in (ROOT / package).rglob("*.py")
    )


def path_of(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(path_of(module).read_text(encoding="utf-8"))


def imports(module: str) -> Iterator[str]:
    """Yield what a module imports, wherever in it; of `from a import b` the module a.b where there is one."""
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if path_of(name).is_file() else str(node.module)


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def layer(module: str) -> int:
    part = [*module.split("."), "__main__"][1]
    return next(number for number, names in enumerate(LAYERS) if part in names)


def is_shared(name: str) -> bool:
    return any(within(name, package) for package in SHARED)


ALL: Final = [module for package in PACKAGES for module in modules(package)]


def test_the_orchestrator_imports_no_django() -> None:
    offenders = {
        f"{module} -> {name}"
        for module in modules("smooth_orchestrator")
        for name in imports(module)
        if within(name, "django")
    }
    assert offenders == set()


def test_the_orchestrator_knows_of_the_django_app_the_messages_and_how_a_lint_is_written_alone() -> None:
    offenders = {
        f"{module} -> {name}"
        for module in modules("smooth_orchestrator")
        for name in imports(module)
        if within(name, "smooth_migrations") and not is_shared(name)
    }
    assert offenders == set()


def test_the_django_app_imports_nothing_of_the_orchestrator() -> None:
    offenders = {
        f"{module} -> {name}"
        for module in modules("smooth_migrations")
        for name in imports(module)
        if within(name, "smooth_orchestrator")
    }
    assert offenders == set()


def test_the_messages_and_what_holds_them_need_the_standard_library_alone() -> None:
    shared = [module for module in modules("smooth_migrations") if is_shared(module)]
    offenders = {
        f"{module} -> {name}"
        for module in ["smooth_migrations", "smooth_migrations.lint", HOOKS, *shared]
        for name in imports(module)
        if not is_shared(name)
        and name not in {HOOKS, ASKED_FOR}
        and name.partition(".")[0] not in sys.stdlib_module_names
    }
    assert offenders == set()


def test_every_module_of_the_orchestrator_has_its_layer() -> None:
    parts = {module.split(".")[1] for module in modules("smooth_orchestrator") if "." in module}
    assert parts == frozenset().union(*LAYERS)
    assert sum(map(len, LAYERS)) == len(parts), "a module stands in two layers"


def test_no_layer_of_the_orchestrator_imports_a_higher_one() -> None:
    offenders = {
        f"{module} -> {name}"
        for module in modules("smooth_orchestrator")
        for name in imports(module)
        if name.startswith("smooth_orchestrator.") and layer(name) < layer(module)
    }
    assert offenders == set()


@pytest.mark.parametrize("module", ALL)
def test_a_module_is_short(module: str) -> None:
    assert len(path_of(module).read_text(encoding="utf-8").splitlines()) <= MAX_LINES


@pytest.mark.parametrize("module", ALL)
def test_a_module_opens_with_its_purpose(module: str) -> None:
    assert ast.get_docstring(tree_of(module))


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_says_that_it_is_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()

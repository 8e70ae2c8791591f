import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from jsonschema import Draft202012Validator

from demo.deploys import plan
from demo.fleet import Fleet
from smooth_migrations.protocol import DatabaseFacts
from smooth_orchestrator import plan as planning
from smooth_orchestrator.cli import main
from smooth_orchestrator.config import load
from smooth_orchestrator.schema import json_schema
from tests.support.followed_page import FOLLOWED, normalised
from tests.support.runs import SCRIPT
from tests.support.shop import check_out
from tests.support.small_migrations import ITEM
from tests.support.small_project import SmallProject
from tests.support.terminal_pictures import text_of

ROOT: Final = Path(__file__).parents[2]
DOCUMENTS: Final = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))
}
README: Final = DOCUMENTS["README.md"]
_FENCED = re.compile(r"^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"(?<!`)`(?P<code>[^`]+)`(?!`)")
_MANAGEMENT: Final = ("apply_migrations", "finalise_migrations", "lint_migrations")
_PROGRAMS: Final = ("smooth-orchestrate", "make ", "manage.py", ".venv/bin/")


@dataclass(frozen=True, slots=True)
class Command:
    """A command as a document shows it.

    Args:
        document: where.
        words: of the command, options in brackets taken for granted.
    """

    document: str
    words: tuple[str, ...]

    @property
    def options(self) -> list[str]:
        """Its options, without their values."""
        return [word.partition("=")[0] for word in self.words if word.startswith("-")]

    def __str__(self) -> str:
        return f"{self.document}: {' '.join(self.words)}"


def _shown() -> Iterator[Command]:
    for document, text in DOCUMENTS.items():
        for block in _FENCED.finditer(text):
            # Pages that are followed run each command that a block shows.
            if block["kind"] == "console" and not document.startswith(FOLLOWED):
                for line in re.findall(r"^\$ (.*)$", block["text"], re.MULTILINE):
                    yield _command(document, line)
        for code in _INLINE.findall(_FENCED.sub("", text)):
            line = " ".join(code.split())
            if line.startswith((*_PROGRAMS, "--")) and not line.endswith("/"):
                yield _command(document, line)


def _command(document: str, line: str) -> Command:
    words = shlex.split(line.translate({ord("["): " ", ord("]"): " "}), comments=True)
    return Command(document, tuple(words[1:] if words[0] == "python" else words))


SHOWN: Final = sorted(set(_shown()), key=str)


def _of(program: str) -> list[Command]:
    return [command for command in SHOWN if command.words[0] == program]


def _help(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main([*words, "--help"]) == 0
    return capsys.readouterr().out


def _has(text: str, option: str) -> bool:
    return re.search(rf"(^|\s){re.escape(option)}(\s|,|=|$)", text, re.MULTILINE) is not None


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> SmallProject:
    directory = tmp_path_factory.mktemp("project")
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(directory / "db.sqlite3")}
    return SmallProject(directory, {"default": database}, {"demo.0001_item": ITEM})


@pytest.fixture(scope="module")
def management_help(project: SmallProject) -> str:
    """What the management commands say of their options."""
    return "".join(project.succeed(name, "--help") for name in _MANAGEMENT)


def test_every_kind_of_command_is_found_in_the_documents() -> None:
    known = {
        "smooth-orchestrate",
        "make",
        "manage.py",
        "pip",
        ".venv/bin/python",
        ".venv/bin/mkdocs",
        ".venv/bin/pre-commit",
        "lnav",
        "export",
    }
    assert {command.words[0] for command in SHOWN if not command.words[0].startswith("-")} == known
    assert {command.document for command in SHOWN} >= {"README.md", "CONTRIBUTING.md"}


@pytest.mark.parametrize("command", _of("smooth-orchestrate"), ids=str)
def test_a_command_that_is_shown_exists_with_its_options(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    name, *rest = command.words[1:]
    if name == "PLAN" or name.endswith(".toml"):
        name, rest = "deploy", [name, *rest]
    text = _help(capsys, name)
    assert [option for option in command.options if not _has(text, option)] == []
    takes_plan = "PLAN" in text.partition("\n\n")[0]
    assert ([word for word in rest if word == "PLAN" or word.endswith(".toml")] != []) == takes_plan


@pytest.mark.parametrize("command", [each for each in SHOWN if each.words[0].startswith("--")], ids=str)
def test_an_option_that_is_spoken_of_exists(
    command: Command, capsys: pytest.CaptureFixture[str], management_help: str
) -> None:
    [option] = command.options
    names = ("deploy", "rehearse", "rollback", "recover", "report", "lint", "init", "worker")
    helps = [_help(capsys, name) for name in names]
    assert _has("".join(helps) + management_help, option)


@pytest.mark.parametrize("command", _of("make"), ids=str)
def test_a_make_target_that_is_shown_exists(command: Command) -> None:
    done = subprocess.run(
        ["make", "--dry-run", *command.words[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", _of("manage.py"), ids=str)
def test_a_management_command_that_is_shown_runs(command: Command, project: SmallProject) -> None:
    if command.words[1] != "apply_migrations":
        project.succeed("migrate", "--verbosity", "0")
    project.succeed(*command.words[1:])
    assert "[X] 0001_item" in project.succeed("showmigrations", "demo")


def test_what_a_reader_is_told_to_install_and_run_is_there() -> None:
    [install, *extras] = [command.words for command in _of("pip")]
    assert install == ("pip", "install", ".")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {words[:2] for words in extras} <= {install[:2]}
    # Brackets are taken for an option's.
    named = [words[2].split() for words in extras]
    assert sorted(named) == [[project["name"], extra] for extra in sorted(project["optional-dependencies"])]
    [test] = _of(".venv/bin/python")
    assert test.words[1:3] == ("-m", "pytest")
    assert (ROOT / test.words[3]).is_file()
    [hooks] = _of(".venv/bin/pre-commit")
    assert hooks.words[1:] == ("install",)
    assert (ROOT / ".pre-commit-config.yaml").is_file()


PLANS: Final = [
    pytest.param(block["text"], id=document)
    for document, text in DOCUMENTS.items()
    for block in _FENCED.finditer(text)
    if block["kind"] == "toml"
]


@pytest.mark.parametrize("text", PLANS)
def test_a_plan_that_is_shown_obeys_the_schema(text: str) -> None:
    Draft202012Validator(json_schema()).validate(tomllib.loads(text))


@pytest.mark.parametrize("text", PLANS)
def test_a_plan_that_is_shown_is_taken_by_the_program(text: str, tmp_path: Path) -> None:
    for project in tomllib.loads(text)["projects"].values():
        (tmp_path / project["path"]).mkdir(parents=True, exist_ok=True)
        if "python" in project:
            (tmp_path / project["python"]).parent.mkdir(parents=True)
            (tmp_path / project["python"]).symlink_to(sys.executable)
    file = tmp_path / "deploy.toml"
    file.write_text(text, encoding="utf-8")
    # Whatever a secret is for, it may be a URL.
    secrets = dict.fromkeys(re.findall(r"\$\{(\w+)\}", text), "postgresql://smooth@journal.example.com/smooth")
    assert load(file, secrets).deploy.name in text


def test_the_plan_for_a_hundred_shards_has_each_of_them_in_one_phase(tmp_path: Path) -> None:
    [text] = [
        block["text"]
        for block in _FENCED.finditer(DOCUMENTS["docs/how-to/deploy-to-a-hundred-shards.md"])
        if block["kind"] == "toml"
    ]
    (tmp_path / "shop").mkdir()
    (tmp_path / "deploy.toml").write_text(text, encoding="utf-8")
    aliases = ["default", *(f"shard_{number}" for number in range(1, 101))]
    places = [f"postgresql:db{1 + number % 2}:5432/{alias}" for number, alias in enumerate(aliases)]
    facts = [DatabaseFacts(alias, "postgresql", place) for alias, place in zip(aliases, places, strict=True)]
    project = planning.ProjectFacts(tuple(facts), has_routers=False)
    resolved = planning.resolve(load(tmp_path / "deploy.toml", {}), {"shop": project})
    names = [[target.name for target in phase.targets] for phase in resolved.phases]
    assert names[0] == ["shards:shard_1"]
    assert sorted(names[1]) == sorted(["primary", *(f"shards:{alias}" for alias in aliases[2:])])


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> "subprocess.CompletedProcess[str]":
    """The deploy that the README shows: the demo's plan from release 1 to 3, over a row that is there twice."""
    directory = tmp_path_factory.mktemp("readme")
    with Fleet.started(directory) as fleet:
        release_1 = check_out(1, directory / "release1")
        for name in fleet.places:
            fleet.open_for_business(name, release_1)
        fleet.plant_duplicate()
        check_out(3, directory / "shop")
        # One at a time, so that none is still at work where the last one fails.
        one_at_a_time = plan("shop").replace("parallel = 2", "parallel = 1")
        assert one_at_a_time != plan("shop")
        (directory / "deploy.toml").write_text(one_at_a_time)
        before = fleet.dumps()
        done = subprocess.run(
            [SCRIPT, "deploy.toml"],
            cwd=directory,
            env=os.environ | {"SHOP_DATABASES": json.dumps(fleet.databases)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert fleet.dumps() == before
    return done


def test_the_failure_on_the_readmes_first_screen_is_what_is_printed(
    failed: "subprocess.CompletedProcess[str]",
) -> None:
    [picture] = re.findall(r"\]\((docs/images/[^)]+\.svg)\)", README.partition("## Install")[0])
    shown = normalised(text_of((ROOT / picture).read_text(encoding="utf-8")))
    printed = [line for line in normalised(failed.stdout) if line]
    assert failed.returncode == 1, failed.stderr
    # A terminal is told what to do next, too, and what was logged.
    assert [line for line in shown if line in printed] == printed

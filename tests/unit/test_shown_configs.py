"""The files of `configs/` that pages show in full are what they show, and are what their readers' programs take."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
import yaml
from groovy_parser.parser import parse_groovy_content
from lark.exceptions import UnexpectedInput

ROOT: Final = Path(__file__).parents[2]
# A link that ends its paragraph with a colon, and the block that follows.
_SHOWN: Final = re.compile(
    r"\]\((?P<path>[./]*/configs/[^)]+)\):\n\n```\w+\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)
SHOWN: Final = [
    pytest.param(page.parent / block["path"], block["text"], id=f"{page.stem}-{Path(block['path']).name}")
    for page in sorted((ROOT / "docs").rglob("*.md"))
    for block in _SHOWN.finditer(page.read_text(encoding="utf-8"))
]
_PIPELINES: Final = ROOT / "configs/pipelines"
_GITHUB, _GITLAB = "vendor.github-workflows", "vendor.gitlab-ci"


@pytest.mark.parametrize(("file", "text"), SHOWN)
def test_a_file_that_a_page_shows_is_that_file(file: Path, text: str) -> None:
    assert file.read_text(encoding="utf-8") == text


@pytest.mark.parametrize("directory", ["pipelines", "kubernetes", "systemd", "fleet"])
def test_a_page_shows_every_file_of(directory: str) -> None:
    shown = {Path(str(each.values[0])).resolve() for each in SHOWN}
    assert {path.resolve() for path in (ROOT / "configs" / directory).iterdir()} <= shown


@pytest.mark.parametrize(
    ("deploys", "finalises"),
    [
        ("pipelines/github-actions.yml", "pipelines/github-actions-finalise.yml"),
        ("pipelines/gitlab-ci.yml", "pipelines/gitlab-ci.yml"),
        ("pipelines/Jenkinsfile", "pipelines/Jenkinsfile.finalise"),
        ("pipelines/ansible.yml", "pipelines/ansible-finalise.yml"),
        ("kubernetes/smooth-deploy.yaml", "kubernetes/smooth-finalise.yaml"),
        ("systemd/smooth-deploy@.service", "systemd/smooth-finalise.service"),
    ],
)
def test_what_deploys_has_something_beside_it_that_finalises(deploys: str, finalises: str) -> None:
    for path, command in ((deploys, "deploy"), (finalises, "finalise")):
        text = (ROOT / "configs" / path).read_text(encoding="utf-8")
        assert re.search(rf"^[^#]*smooth-orchestrate\b.*\b{command}\b", text, re.DOTALL | re.MULTILINE)


def _complaints(schema: str, *words: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *words],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("name", ["github-actions.yml", "github-actions-finalise.yml"])
def test_githubs_schema_takes_the_workflow(name: str, tmp_path: Path) -> None:
    assert _complaints(_GITHUB, str(_PIPELINES / name)) == (0, "ok -- validation done\n")
    (tmp_path / name).write_text((_PIPELINES / name).read_text().replace("timeout-minutes", "timeout"))
    assert _complaints(_GITHUB, str(tmp_path / name))[0] == 1


def test_gitlabs_schema_takes_the_pipeline(tmp_path: Path) -> None:
    file = _PIPELINES / "gitlab-ci.yml"
    transformed = ("--data-transform", "gitlab-ci")
    assert _complaints(_GITLAB, *transformed, str(file)) == (0, "ok -- validation done\n")
    (tmp_path / file.name).write_text(file.read_text().replace("resource_group", "resource-group"))
    assert _complaints(_GITLAB, *transformed, str(tmp_path / file.name))[0] == 1


@pytest.mark.parametrize("name", ["Jenkinsfile", "Jenkinsfile.finalise"])
def test_a_jenkinsfile_is_groovy(name: str) -> None:
    parse_groovy_content((_PIPELINES / name).read_text())
    with pytest.raises(UnexpectedInput):
        parse_groovy_content("pipeline { agent { label 'deploy' }")


def test_of_deploys_one_is_at_work_at_a_time_and_none_is_repeated_by_itself() -> None:
    deploy, finalise = (
        yaml.safe_load((_PIPELINES / name).read_text())["concurrency"]
        for name in ("github-actions.yml", "github-actions-finalise.yml")
    )
    assert (deploy["cancel-in-progress"], finalise["cancel-in-progress"]) == (False, False)
    assert deploy["group"] != finalise["group"]
    gitlab = yaml.safe_load((_PIPELINES / "gitlab-ci.yml").read_text())
    assert (gitlab["default"]["retry"], gitlab["default"]["interruptible"]) == (0, False)
    jobs = [gitlab[name] for name in ("deploy-databases", "roll-out", "finalise")]
    assert {job["resource_group"] for job in jobs} == {"shop-databases"}
    assert gitlab["finalise"]["allow_failure"]["exit_codes"] == [3, 5]
    for name in ("Jenkinsfile", "Jenkinsfile.finalise"):
        assert "disableConcurrentBuilds()" in (_PIPELINES / name).read_text()
    job = yaml.safe_load((ROOT / "configs/kubernetes/smooth-deploy.yaml").read_text())["spec"]
    assert (job["backoffLimit"], job["template"]["spec"]["restartPolicy"]) == (0, "Never")
    assert "\nRestart=no\n" in (ROOT / "configs/systemd/smooth-deploy@.service").read_text()

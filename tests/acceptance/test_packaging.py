import os
import subprocess
import sys
import venv
import zipfile
from email import message_from_bytes
from pathlib import Path
from typing import Final

import pytest

import smooth_migrations
import smooth_orchestrator

ROOT: Final = Path(__file__).parents[2]
PACKAGES: Final = ("smooth_migrations", "smooth_orchestrator")


def run(*argv: str | Path, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(argv, cwd=cwd, env=environment, check=False, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", directory, ROOT, cwd=directory)
    [built] = directory.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def metadata(wheel: Path) -> dict[str, str]:
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return dict(message_from_bytes(archive.read(name)).items())


def test_the_wheel_holds_both_packages_whole_and_nothing_else(names: set[str]) -> None:
    sources = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in names if ".dist-info/" not in name} == sources
    assert {f"{package}/py.typed" for package in PACKAGES} <= names


def test_the_wheel_installs_the_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt")]
        assert "smooth-orchestrate = smooth_orchestrator.cli:main" in archive.read(name).decode()


def test_the_wheels_version_is_both_packages_version(wheel: Path) -> None:
    version = metadata(wheel)["Version"]
    assert (smooth_migrations.__version__, smooth_orchestrator.__version__) == (version, version)


def test_an_sdist_builds_and_a_wheel_builds_from_it(tmp_path: Path, names: set[str]) -> None:
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", tmp_path, ROOT, cwd=tmp_path)
    [_] = tmp_path.glob("*.tar.gz")
    [built] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        assert set(archive.namelist()) == names


@pytest.mark.long
def test_the_wheel_installed_alone_in_an_empty_environment_runs(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    binaries = tmp_path / "venv" / "bin"
    run(binaries / "python", "-m", "pip", "install", "--quiet", wheel, cwd=tmp_path)
    assert smooth_orchestrator.__version__ in run(binaries / "smooth-orchestrate", "--version", cwd=tmp_path)
    assert "deploy" in run(binaries / "python", "-m", "smooth_orchestrator", "--help", cwd=tmp_path)
    assert '"$schema"' in run(binaries / "smooth-orchestrate", "schema", cwd=tmp_path)

"""The page about the helpers: its models, one after the other, do what it says."""

import re
from pathlib import Path
from typing import Final

import pytest

from tests.support.histories import SqliteDatabase
from tests.support.small_project import SmallProject

PAGE: Final = (Path(__file__).parents[2] / "docs/how-to/two-releases-in-the-models.md").read_text(encoding="utf-8")
NEW, FILLED, EMPTIED, DROPPED = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
NOT_FILLED, FIELD_USED, MODEL_USED, LISTED = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
BEFORE: Final = """\
from django.db import models


class Order(models.Model):
    email = models.CharField(max_length=100)
    total = models.IntegerField()


class Voucher(models.Model):
    code = models.CharField(max_length=20)
"""
VOUCHER: Final = BEFORE[BEFORE.index("\n\nclass Voucher") :]


@pytest.fixture
def project(tmp_path: Path) -> SmallProject:
    """A shop before any of the changes."""
    database = SqliteDatabase(tmp_path / "shop.sqlite3")
    project = SmallProject(tmp_path, {"default": database.django}, {"shop.none": ""})
    (tmp_path / "shop/migrations/none.py").unlink()
    assert _released(project, BEFORE) == ["+ Create model Order", "+ Create model Voucher"]
    return project


def _released(project: SmallProject, models: str) -> list[str]:
    """Deploy a release; return what its migration does."""
    project.write("shop/models.py", models)
    told = project.succeed("makemigrations", "shop", "--no-input")
    project.succeed("migrate", "--verbosity", "0")
    return [line.strip() for line in told.splitlines() if line.startswith("    ")]


def _failing(project: SmallProject, line: str) -> str:
    """Return the last line of the traceback of a view's line 12."""
    project.write("views.py", "from shop.models import *\n" + "\n" * 10 + line + "\n")
    return project.run("shell", "--verbosity", "0", "--command", "import views").stderr.splitlines()[-1]


def _as_shown(line: str) -> str:
    return re.sub(r"\(/.*/views.py", "(/srv/shop/views.py", line) + "\n"


def test_the_models_of_the_page_do_what_it_says(project: SmallProject) -> None:
    assert _released(project, NEW + VOUCHER) == ["+ Add field currency to order"]
    assert _as_shown(_failing(project, "Order.objects.create(email='a@example.com', total=1)")) == NOT_FILLED

    assert _released(project, FILLED + VOUCHER) == ["~ Alter field currency on order"]

    assert _released(project, EMPTIED + VOUCHER) == ["~ Alter field email on order"]
    assert _as_shown(_failing(project, "Order(total=1, currency='EUR').email")) == FIELD_USED

    assert _released(project, DROPPED) == ["- Remove field email from order"]
    assert _as_shown(_failing(project, "Voucher.objects.all()")) == MODEL_USED

    assert _released(project, DROPPED[: DROPPED.index("@deprecated_model")]) == ["- Delete model Voucher"]


def test_the_list_of_the_page_is_what_is_printed(project: SmallProject) -> None:
    decorated = "@backward_compatible_model\nclass Order(models.Model):\n"
    imports = NEW.partition("@backward")[0].replace("import new_field", "import deprecated_field, new_field")
    email = EMPTIED[EMPTIED.index("    email") : EMPTIED.index("    total")]
    currency = NEW[NEW.index("    currency") :]
    voucher = DROPPED[DROPPED.index("@deprecated_model") :]
    imports = imports.replace("import backward_compatible_model", "import backward_compatible_model, deprecated_model")
    project.write("shop/models.py", f"{imports}{decorated}{email}{currency}\n\n{voucher}")
    assert project.succeed("show_migration_changes") == LISTED

"""A project that checks its types strictly has nothing to complain of in its models."""

import subprocess
import sys
from pathlib import Path

MODELS = """
from typing import assert_type

from django.db import models

from smooth_migrations.exceptions import FieldDeprecatedException, SmoothMigrationsDeprecated
from smooth_migrations.fields import deprecated_field, new_field
from smooth_migrations.models import backward_compatible_model, deprecate_model, deprecated_model


@backward_compatible_model
class Order(models.Model):
    email: "models.CharField[str, str]" = deprecated_field(models.CharField(max_length=100), on_use="warn")
    total: "models.IntegerField[int, int]" = new_field(models.IntegerField())


@deprecated_model
class Voucher(models.Model):
    order: "models.ForeignKey[Order, Order]" = deprecated_field(models.ForeignKey(Order, models.CASCADE))


@deprecate_model(on_use="warn")
class Ticket(models.Model):
    def title(self) -> str:
        return "ticket"


def used(order: Order, voucher: Voucher, ticket: Ticket) -> str | None:
    assert_type(order.total, int)
    assert_type(voucher.order, Order)
    assert_type(ticket.title(), str)
    try:
        return order.email
    except FieldDeprecatedException as error:
        assert_type(error.field, str | None)
        raised: SmoothMigrationsDeprecated = error
        return raised.place
"""
WRONG = {
    'deprecated_field(models.CharField(max_length=1), on_use="shout")': "arg-type",
    "new_field(5)": "type-var",
    "deprecated_model(Order())": "call-overload",
}


def _checked(directory: Path, source: str) -> str:
    (directory / "models.py").write_text(source)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir=.mypy", "models.py"],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout


def test_models_with_the_helpers_are_typed(tmp_path: Path) -> None:
    assert _checked(tmp_path, MODELS) == "Success: no issues found in 1 source file\n"
    wrong = _checked(tmp_path, MODELS + "\n\n" + "\n".join(WRONG))
    assert [line.rpartition("[")[2].rstrip("]") for line in wrong.splitlines() if ": error:" in line] == [
        *WRONG.values()
    ]

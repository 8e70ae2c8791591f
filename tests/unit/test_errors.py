from django.db import OperationalError
from django.db.transaction import TransactionManagementError

from smooth_migrations.errors import describe


def _raised(cause: Exception | None) -> Exception:
    try:
        try:
            raise OperationalError("database or disk is full")
        finally:
            raise TransactionManagementError("broken") from cause
    except TransactionManagementError as error:
        return error


def test_what_broke_a_transaction_is_named_beside_what_django_says_of_it() -> None:
    for error in (_raised(None), _raised(OperationalError("database or disk is full"))):
        assert describe(error).message == "broken (OperationalError: database or disk is full)"


def test_an_error_of_many_characters_is_told_by_its_beginning_and_its_end() -> None:
    message = describe(ValueError("begin " + "x" * 1_000_000 + " end")).message
    assert message.startswith("begin xxx")
    assert message.endswith("xxx end")
    assert " … (990010 characters left out) … " in message

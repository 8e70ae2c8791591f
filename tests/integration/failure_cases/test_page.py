"""The page of the documentation says what these tests prove, and these tests prove what it says."""

from pathlib import Path

from tests.support.failure_cases import CASES, page, proofs

_PAGE = Path(__file__).parents[3] / "docs/reference/failure-cases.md"


def test_each_case_is_proven_on_every_kind_of_database_and_each_proof_has_its_case() -> None:
    found = {(number, proof.vendor) for proof in proofs() for number in proof.numbers}

    assert found == {(number, vendor) for number in CASES for vendor in ("postgresql", "sqlite", "mariadb")}


def test_the_page_is_what_is_proven() -> None:
    # `python -m tests.support.failure_cases > docs/reference/failure-cases.md` writes it anew.
    assert _PAGE.read_text(encoding="utf-8") == page()

"""Which tests a run takes."""

from tests.support.sampling import in_share

_TESTS = [f"tests/integration/test_any.py::test_that[{number}]" for number in range(40)]


def test_each_test_is_of_one_share_and_what_needs_no_server_of_each() -> None:
    first, second = ([test for test in _TESTS if in_share(test, share)] for share in ("1/2", "2/2"))
    assert sorted([*first, *second]) == sorted(_TESTS)
    assert first
    assert second
    assert all(in_share("tests/unit/test_any.py::test_that", share) for share in ("1/2", "2/2", "1/1"))
    assert all(in_share(test, "1/1") for test in _TESTS)
    assert all(in_share(test, "1/2", is_of_first=True) and in_share(test, "1/1", is_of_first=True) for test in _TESTS)
    assert not any(in_share(test, "2/2", is_of_first=True) for test in _TESTS)

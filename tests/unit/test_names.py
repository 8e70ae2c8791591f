import itertools

import pytest

from smooth_migrations.protocol.names import session_name, session_prefixes, shortened

_RUNS = [
    "r1",
    "r",
    "20261123T055742-41743cf4",
    "a" * 38,
    "a" * 39,
    "a" * 55,
    "a" * 56,
    *("x" * 63 + end for end in "ab"),
]
_ALIASES = ["default", "d", *("shard_" * 12 + end for end in "12"), "größe", "größf", "🐘" * 20, "line\nbreak", "%s"]


def test_the_name_of_a_session_is_made_of_run_and_alias_where_both_fit() -> None:
    assert session_name("20261123T055742-41743cf4", "default") == "smooth:20261123T055742-41743cf4:default"
    assert session_name("a" * 47, "default") == f"smooth:{'a' * 47}:default"


def test_no_two_sessions_have_one_name_and_none_is_changed_by_a_server() -> None:
    names = [session_name(run, alias) for run, alias in itertools.product(_RUNS, _ALIASES)]

    assert len({*names}) == len(names)
    assert [name for name in names if not (len(name) <= 63 and name.isascii() and name.isprintable())] == []


@pytest.mark.parametrize("run", _RUNS)
def test_the_sessions_of_a_run_are_found_and_no_others(run: str) -> None:
    for other, alias in itertools.product(_RUNS, _ALIASES):
        assert session_name(other, alias).startswith(session_prefixes(run)) is (other == run)


@pytest.mark.parametrize("longest", [17, 40])
def test_a_text_is_shortened_to_what_fits_and_stands_for_it_alone(longest: int) -> None:
    texts = [shortened("x" * 100 + end, longest) for end in ("a", "b", "\ud800")]
    assert len({*texts}) == 3
    assert {len(text) for text in texts} == {longest}

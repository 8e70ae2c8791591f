"""The helpers for two releases at once, in a project whose old release is what is in the database."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.histories import Database
from tests.support.library import Library
from tests.support.new_databases import NewDatabases

FIRST: Final = ["first", None, None, 0]
ATLAS: Final = ["atlas", None, None, 0]
NEW: Final = ["new", 1, "", 1]
ROWS: Final = {
    "save others": [["other", None, None, 0], ATLAS],
    "save what is loaded": [["other", None, None, 0], ATLAS],
    "save all": [["other", 1, "", 1], ATLAS],
    "save what is new": [["first", 0, "", 0], ATLAS],
    "create": [FIRST, ATLAS, NEW],
    "create child": [FIRST, ATLAS, NEW],
    "bulk_create": [FIRST, ATLAS, NEW, NEW],
    "bulk_update others": [["other", None, None, 0], ATLAS],
    "bulk_update": [["first", 4, None, 0], ATLAS],
    "update others": [["other", None, None, 0], ATLAS],
    "update": [["first", 3, None, 0], ["atlas", 3, None, 0]],
    "update computed": [["first", 2, None, 0], ["atlas", 2, None, 0]],
    "get_or_create": [FIRST, ATLAS, NEW],
    "get_or_create old": [FIRST, ATLAS],
    "update_or_create old": [FIRST, ATLAS],
    "update_or_create": [FIRST, ATLAS, NEW],
    "delete": [ATLAS],
}
FIELDS: Final = [
    "shelf",
    "row",
    "title",
    "summary",
    "rating",
    "publisher",
    "cover",
    "stock",
    "note",
    "pages",
    "isbn",
    "editor",
    "tags",
]
SANE: Final = {
    "loading_selects_no_deprecated_column": [],
    "saving_names_no_deprecated_column": [],
    "saving_leaves_what_the_old_release_wrote": ["changed", "s", 1, 3, 7, 9],
    "a_new_row_has_nothing_or_the_databases_default": ["new", None, None, None, 7, 1],
    "the_class_and_its_options_know_their_fields": [
        True,
        True,
        ["summary", "rating", "publisher", "publisher", "cover", "tags", "shelf"],
        "Publisher",
        "Book_tags",
        FIELDS,
        "CharField",
        True,
        True,
        ["books"],
    ],
    "instances_are_copied_pickled_and_refreshed": ["changed", ["changed"], "Book object (1)", []],
    "whatever_is_not_deprecated_can_be_queried": [
        [{"x": "first", "row": 1}],
        ["first"],
        ["atlas", "first"],
        ["atlas", "first"],
        1,
    ],
    "forms_and_validation_pass_it_by": [
        ["row", "title", "pages", "isbn", "editor"],
        "",
        {"pages": ["This field is required."]},
        ["id", "row", "title", "pages", "isbn", "editor"],
    ],
    "the_admin_shows_and_deletes": [["row", "title", "pages", "isbn", "editor"], 1, {"publishers": 1}, [], []],
    "what_is_dumped_is_loaded": [
        ["editor", "isbn", "pages", "row", "title"],
        [f"demo.{name}" for name in ("atlas", "author", "book", "cover", "loan", "publisher", "tag")],
        ["first", "s", 1, 3, 7, None],
        {"row": 1, "title": "first", "pages": None, "isbn": None, "editor": None},
    ],
    "a_fixture_with_a_deprecated_value_is_refused": ["DeserializationError", "FieldDeprecatedException"],
    "raw_statements_give_rows_with_what_is_not_deprecated": [["first", 1, None], ["atlas", 1, None]],
    "what_deprecated_fields_refer_to_can_be_deleted": [
        [{"demo.Publisher": 1}, {"demo.Cover": 2}, {"demo.Book_tags": 1, "demo.Tag": 1}],
        [[None, None], [None, None]],
    ],
    "what_a_deprecated_model_refers_to_takes_its_rows_along": [1, {"demo.Loan": 1, "demo.Author": 1}, 0],
    "a_new_field_may_be_cascaded_over": {"demo.Author": 1, "demo.Book": 1},
    "managers_know_their_model": [
        ["open", "objects", "plain"],
        ["Loan", "Loan", "Loan"],
        "open",
        True,
        "demo.models.LoanQuerySet",
        "OpenLoans",
        1,
    ],
}


def _those(told: Mapping[str, list[Any]], is_one: Callable[[list[Any]], bool]) -> dict[str, list[Any]]:
    """Return the cases of which that holds."""
    assert told
    return {name: each for name, each in told.items() if is_one(each)}


@pytest.fixture
def database(every_database: NewDatabases) -> Database:
    """An empty one."""
    return every_database.new()


@pytest.fixture
def library(database: Database, tmp_path: Path) -> Library:
    """The second release, over the first one's rows."""
    library = Library(tmp_path / "library", database)
    library.deploy(1)
    library.seed()
    library.deploy(2)
    return library


@pytest.mark.long_on("mysql", "postgresql")
def test_every_use_of_what_is_deprecated_raises_and_names_the_callers_line(library: Library) -> None:
    told = library.run("uses")
    assert _those(told["fields"], lambda each: each[:2] != ["FieldDeprecatedException", True]) == {}
    assert _those(told["models"], lambda each: each[:2] != ["ModelDeprecatedException", True]) == {}


@pytest.mark.long_on("mysql", "postgresql")
def test_every_use_with_warn_warns_with_the_callers_line(library: Library) -> None:
    library.warn_only()
    told = library.run("uses")
    # The values are selected as ever, and not to select one is no use of it. Django remembers the way back over a
    # relation: the second query that takes it is not noticed.
    del told["fields"]["defer"], told["fields"]["filter reverse"]
    for kind in told.values():
        assert _those(kind, lambda each: not (each[2] and each[3])) == {}
    assert told["fields"]["read"] == [None, False, ["demo.Book.summary is deprecated, and was read"], True]


@pytest.mark.long_on("mysql", "postgresql")
def test_what_is_deprecated_with_warn_works_on_and_others_hear_nothing(library: Library) -> None:
    library.warn_only()
    assert library.run("warned") == {
        "render": ["s", ["demo.Book.summary is deprecated, and was read"]],
        "others": [["changed", 13, 1], []],
        "create": ["mine", "p", 2, None],
        "change": [["changed", 8, 2], 1, 2],
        "model": [2, ["demo.Loan is deprecated, and was asked for rows", "demo.Loan is deprecated, and was saved"]],
    }


@pytest.mark.long_on("mysql", "postgresql")
def test_whatever_is_not_deprecated_goes_on(library: Library) -> None:
    assert library.run("sanity") == SANE


def test_every_way_of_writing_a_row_without_what_is_new_is_refused(library: Library) -> None:
    told = library.run("filling")
    assert _those(told["refused"], lambda each: [each[0], each[-1]] != ["NotNullableFieldException", True]) == {}
    assert told["accepted"] == ROWS

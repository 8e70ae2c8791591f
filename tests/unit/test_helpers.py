import copy
import pickle
from typing import Any, Final, TypeAlias

import pytest
from django.core.validators import MaxLengthValidator
from django.db import models
from hypothesis import given
from hypothesis import strategies as st

from smooth_migrations.exceptions import (
    FieldDeprecatedException,
    ModelDeprecatedException,
    NotNullableFieldException,
    SmoothMigrationsDeprecated,
)
from smooth_migrations.fields import deprecated_field, new_field

Plain: TypeAlias = "models.Field[Any, Any]"

COMMON: Final = {
    "null": st.booleans(),
    "blank": st.booleans(),
    "editable": st.booleans(),
    "serialize": st.booleans(),
    "db_column": st.sampled_from([None, "column"]),
    "help_text": st.text(max_size=3),
    "verbose_name": st.sampled_from([None, "name"]),
}
VALUES: Final = {
    **COMMON,
    "unique": st.booleans(),
    "db_index": st.booleans(),
    "choices": st.sampled_from([None, [("a", "A")]]),
    "validators": st.sampled_from([(), [MaxLengthValidator(3)]]),
    "unique_for_date": st.sampled_from([None, "day"]),
    "unique_for_year": st.sampled_from([None, "day"]),
}
# Whether a model is swapped is asked of a project, and there is none.
NO_PROJECT: Final = {"swappable": st.just(False)}  # noqa: FBT003 - a value of that option
RELATIONS: Final = {
    **NO_PROJECT,
    **COMMON,
    "to": st.sampled_from(["demo.Other", "self"]),
    "on_delete": st.sampled_from([models.CASCADE, models.PROTECT, models.DO_NOTHING, models.SET_NULL]),
    "related_name": st.sampled_from([None, "+", "others"]),
    "db_constraint": st.booleans(),
}
MANY: Final = {
    **NO_PROJECT,
    "to": st.sampled_from(["demo.Other", "self"]),
    "related_name": st.sampled_from([None, "+", "others"]),
    "db_table": st.sampled_from([None, "table"]),
    "blank": st.booleans(),
}
DEFAULTS: Final = st.sampled_from([{}, {"default": "x"}, {"db_default": "x"}])

declared: Final = st.one_of(
    st.tuples(st.just(models.CharField), st.fixed_dictionaries(VALUES), DEFAULTS),
    st.tuples(st.just(models.TextField), st.fixed_dictionaries(VALUES), DEFAULTS),
    st.tuples(st.just(models.IntegerField), st.fixed_dictionaries(VALUES), st.just({})),
    st.tuples(st.just(models.ForeignKey), st.fixed_dictionaries(RELATIONS), st.just({})),
    st.tuples(st.just(models.OneToOneField), st.fixed_dictionaries(RELATIONS), st.just({})),
    st.tuples(st.just(models.ManyToManyField), st.fixed_dictionaries(MANY), st.just({})),
)


def made(kind: type[Plain], *options: dict[str, Any]) -> Plain:
    field = kind(**{name: value for given in options for name, value in given.items()})
    field.set_attributes_from_name("old")
    return field


@given(declared, st.sampled_from(["raise", "warn", "new"]))
def test_migrations_see_the_plain_field_and_it_is_nullable_where_a_row_can_be_without_it(
    drawn: tuple[type[Plain], dict[str, Any], dict[str, Any]], how: str
) -> None:
    kind, options, default = drawn
    is_many = kind is models.ManyToManyField
    if how == "new" and is_many:
        return
    field = made(kind, options, default)
    wrapped = (
        new_field(field) if how == "new" else deprecated_field(field, on_use="raise" if how == "raise" else "warn")
    )
    has_way = is_many or ("db_default" in default and how != "new")
    expected = made(kind, options, default, {} if has_way else {"null": True})

    for each in (wrapped, copy.copy(wrapped), copy.deepcopy(wrapped)):
        assert isinstance(each, kind)
        assert each.deconstruct() == expected.deconstruct()
        clone = each.clone()
        assert type(clone) is kind
        vars(clone).update({name: value for name, value in options.items() if name == "swappable"})
        clone.set_attributes_from_name("old")
        assert clone.deconstruct() == expected.deconstruct()


@pytest.mark.parametrize(
    "kind",
    [FieldDeprecatedException, ModelDeprecatedException, NotNullableFieldException],
    ids=lambda kind: kind.__name__,
)
def test_an_error_is_what_it_was_after_it_was_pickled(kind: type[FieldDeprecatedException]) -> None:
    error = kind("text", model="demo.Item", field="old", place="views.py:1", hint="what to do")
    loaded = pickle.loads(pickle.dumps(error))  # noqa: S301 - of this test
    assert (type(loaded), str(loaded), vars(loaded)) == (kind, "text", vars(error))
    assert isinstance(loaded, SmoothMigrationsDeprecated) == ("Deprecated" in kind.__name__)

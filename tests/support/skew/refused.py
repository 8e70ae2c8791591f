"""What has no halves on other kinds of database than PostgreSQL, and in which words it is refused there."""

from typing import Final

from tests.support.histories import Vendor

__all__ = ["REFUSED"]

_COMMITS = "this server commits every change of a table by itself"
_OLD_NAME = "the release still running knows the old name"

_RENAMES: Final = {
    "rename a field": f"Rename field price on item to cost: {_OLD_NAME}",
    "rename a foreign key": f"Rename field kind on item to sort: {_OLD_NAME}",
    "rename a model": f"Rename model Item to Thing: {_OLD_NAME}",
    "rename a model that others refer to": f"Rename model Kind to Sort: {_OLD_NAME}",
    "a table by another name": f"Rename table for item to things: {_OLD_NAME}",
    "rename a model that has many to many": f"Rename model Item to Thing: {_OLD_NAME}",
    "rename a field of a parent": f"Rename field name on item to title: {_OLD_NAME}",
    "rename a model, and another one beside": f"Rename model Item to Thing: {_OLD_NAME}",
    "a generic foreign key": f"Rename field text on note to words: {_OLD_NAME}",
    "a generic foreign key to a renamed model": f"Rename model Item to Thing: {_OLD_NAME}",
    "several at once": f"Rename field name on item to title: {_OLD_NAME}",
}

REFUSED: Final = {
    Vendor.POSTGRESQL: dict[str, str](),
    Vendor.SQLITE: _RENAMES,
    Vendor.MYSQL: {
        **_RENAMES,
        "add a field": f"Add field price to item: {_COMMITS}",
        "remove a field": f"Remove field price from item: {_COMMITS}",
        "delete a model": f"Delete model Note: {_COMMITS}",
        "integers grow": f"Alter field price on item: {_COMMITS}",
        "characters get fewer": f"Alter field price on item: {_COMMITS}",
        "no foreign key may be null": f"Alter field other on item: {_COMMITS}",
        "null is not allowed": f"Alter field price on item: {_COMMITS}",
        "unique": f"Alter field price on item: {_COMMITS}",
        "decimals grow": f"Alter field price on item: {_COMMITS}",
        "remove a foreign key": f"Remove field other from item: {_COMMITS}",
        "remove many to many": f"Remove field tags from item: {_COMMITS}",
        "unique together": f"Alter unique_together for item (1 constraint(s)): {_COMMITS}",
        "constraints": f"Create constraint one on model item: {_COMMITS}",
        "a composite key": f"Add field size to part: {_COMMITS}",
        "add a field to a child": f"Add field size to special: {_COMMITS}",
    },
}
"""By kind of database and change."""

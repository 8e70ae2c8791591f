"""Each way to write a row with or without what is new."""

import asyncio
import json

from demo.models import Atlas, Author, Book, Printed
from django.db import connection, transaction
from django.db.models import F

HERE = __file__


def first():
    return Book.objects.get(title="first")


def changed(book=None, **values):
    book = book or first()
    for name, value in values.items():
        setattr(book, name, value)
    return book


async def awaited(awaitable):
    return await awaitable


def full(**values):
    return {"title": "new", "pages": 1, "isbn": "", "editor_id": Author.objects.first().pk, **values}


REFUSED = {
    "save": lambda: first().save(),
    "save one": lambda: changed(isbn="1", pages=2).save(),
    "save one none": lambda: changed(pages=None).save(update_fields=["pages"]),
    "save new": lambda: Book(title="x").save(),
    "save force_insert": lambda: Book(title="x").save(force_insert=True),
    "save child": lambda: Atlas.objects.first().save(),
    "save new child": lambda: Atlas(title="x").save(),
    "save proxy": lambda: Printed.objects.first().save(),
    "create": lambda: Book.objects.create(title="x"),
    "create proxy": lambda: Printed.objects.create(title="x"),
    "create without key": lambda: Book.objects.create(title="x", pages=1, isbn="1"),
    "create without text": lambda: Book.objects.create(title="x", pages=1, editor_id=1),
    "bulk_create": lambda: Book.objects.bulk_create([Book(**full()), Book(title="x")]),
    "bulk_update": lambda: Book.objects.bulk_update([changed(pages=None)], ["pages"]),
    "bulk_update key": lambda: Book.objects.bulk_update([changed(editor=None)], ["editor"]),
    "update": lambda: Book.objects.update(pages=None),
    "update key": lambda: Book.objects.update(editor=None),
    "update child": lambda: Atlas.objects.update(pages=None),
    "get_or_create": lambda: Book.objects.get_or_create(title="x"),
    "update_or_create": lambda: Book.objects.update_or_create(title="x", defaults={"pages": 1}),
    "update_or_create old": lambda: Book.objects.update_or_create(title="first", defaults={"pages": None}),
    "related": lambda: Author.objects.first().edited.create(title="x"),
    "asave": lambda: asyncio.run(awaited(Book(title="x").asave())),
    "acreate": lambda: asyncio.run(awaited(Book.objects.acreate(title="x"))),
    "abulk_create": lambda: asyncio.run(awaited(Book.objects.abulk_create([Book(title="x")]))),
    "abulk_update": lambda: asyncio.run(
        awaited(Book.objects.abulk_update([changed(Book(pk=1), pages=None)], ["pages"]))
    ),
    "aupdate": lambda: asyncio.run(awaited(Book.objects.aupdate(pages=None))),
    "aget_or_create": lambda: asyncio.run(awaited(Book.objects.aget_or_create(title="x"))),
    "aupdate_or_create": lambda: asyncio.run(awaited(Book.objects.aupdate_or_create(title="x"))),
}

ACCEPTED = {
    "save others": lambda: changed(title="other").save(update_fields=["title"]),
    "save what is loaded": lambda: changed(Book.objects.only("title").get(title="first"), title="other").save(),
    "save all": lambda: changed(**full(title="other")).save(),
    "save what is new": lambda: changed(pages=0, isbn="").save(update_fields=["pages", "isbn"]),
    "create": lambda: Book.objects.create(**full()),
    "create child": lambda: Atlas.objects.create(**full()),
    "bulk_create": lambda: Book.objects.bulk_create([Book(**full()), Book(**full())]),
    "bulk_update others": lambda: Book.objects.bulk_update([changed(title="other")], ["title"]),
    "bulk_update": lambda: Book.objects.bulk_update([changed(pages=4)], ["pages"]),
    "update others": lambda: Book.objects.filter(title="first").update(title="other"),
    "update": lambda: Book.objects.update(pages=3),
    "update computed": lambda: Book.objects.update(pages=F("row") + 1),
    "get_or_create": lambda: Book.objects.get_or_create(title="x", defaults=full()),
    "get_or_create old": lambda: Book.objects.get_or_create(title="first"),
    "update_or_create old": lambda: Book.objects.update_or_create(title="first", defaults={"row": 5}),
    "update_or_create": lambda: Book.objects.update_or_create(title="x", defaults=full()),
    "delete": lambda: first().delete(),
}


def told(case):
    try:
        with transaction.atomic():
            case()
            with connection.cursor() as cursor:
                cursor.execute("SELECT title, pages, isbn, editor_id IS NOT NULL FROM demo_book ORDER BY id")
                rows = [[title, pages, isbn, int(known)] for title, pages, isbn, known in cursor.fetchall()]
            transaction.set_rollback(True)
        return rows
    except Exception as error:
        place = getattr(error, "place", "") or ""
        known = {case.__code__.co_firstlineno, awaited.__code__.co_firstlineno + 1}
        is_named = place in {f"{HERE}:{line}" for line in known}
        return [type(error).__name__, getattr(error, "field", None), is_named]


print(
    json.dumps(
        {
            "refused": {name: told(case) for name, case in REFUSED.items()},
            "accepted": {name: told(case) for name, case in ACCEPTED.items()},
        }
    )
)

"""Each way to use what is deprecated, in one line: the line that the error is to name."""

import asyncio
import json
import warnings

from demo.models import Atlas, Author, Book, Cover, Loan, Printed, Publisher, Tag
from django.db import models, transaction
from django.db.models import Count, F, FilteredRelation, Max, OuterRef, Q, Subquery


def first():
    return Book.objects.get(title="first")


async def awaited(awaitable):
    return await awaitable


FIELDS = {
    "read": lambda: first().summary,
    "write": lambda: setattr(first(), "summary", "x"),
    "read key": lambda: first().publisher_id,
    "read related": lambda: first().publisher,
    "write related": lambda: setattr(first(), "publisher", Publisher.objects.first()),
    "read one to one": lambda: first().cover,
    "read many": lambda: first().tags,
    "write many": lambda: setattr(first(), "tags", []),
    "read reverse": lambda: Publisher.objects.first().books,
    "read reverse one": lambda: Cover.objects.first().book,
    "read reverse many": lambda: Tag.objects.first().books,
    "display": lambda: first().get_rating_display(),
    "read of child": lambda: Atlas.objects.first().summary,
    "read of proxy": lambda: Printed.objects.first().summary,
    "read of abstract": lambda: first().shelf,
    "construct": lambda: Book(title="x", summary="x"),
    "construct related": lambda: Book(publisher=Publisher.objects.first()),
    "construct key": lambda: Book(publisher_id=1),
    "construct many": lambda: Book(tags=[]),
    "construct child": lambda: Atlas(summary="x"),
    "construct proxy": lambda: Printed(summary="x"),
    "create": lambda: Book.objects.create(title="x", summary="x"),
    "get_or_create": lambda: Book.objects.get_or_create(title="x", summary="x"),
    "get_or_create default": lambda: Book.objects.get_or_create(title="x", defaults={"summary": "x"}),
    "update_or_create": lambda: Book.objects.update_or_create(title="first", defaults={"summary": "x"}),
    "filter": lambda: Book.objects.filter(summary="x"),
    "filter key": lambda: Book.objects.filter(publisher_id=1),
    "filter column": lambda: Book.objects.filter(rating__gt=1),
    "filter over": lambda: Book.objects.filter(publisher__name="x"),
    "filter many": lambda: Book.objects.filter(tags__name="x"),
    "annotate reverse": lambda: Publisher.objects.annotate(x=Count("books")),
    "filter reverse": lambda: Publisher.objects.filter(books__title="x"),
    "filter reverse one": lambda: Cover.objects.filter(book__title="x"),
    "filter reverse many": lambda: Tag.objects.filter(books__title="x"),
    "filter from far": lambda: Author.objects.filter(edited__summary="x"),
    "filter child": lambda: Atlas.objects.filter(summary="x"),
    "filter proxy": lambda: Printed.objects.filter(summary="x"),
    "exclude": lambda: Book.objects.exclude(summary="x"),
    "Q": lambda: Book.objects.filter(Q(summary="x") | Q(title="x")),
    "get": lambda: Book.objects.get(summary="x"),
    "order_by": lambda: list(Book.objects.order_by("-summary")),
    "order_by over": lambda: list(Book.objects.order_by("publisher__name")),
    "values": lambda: Book.objects.values("summary"),
    "values_list": lambda: Book.objects.values_list("summary", flat=True),
    "values over": lambda: Book.objects.values("publisher__name"),
    "only": lambda: list(Book.objects.only("summary")),
    "defer": lambda: list(Book.objects.defer("summary")),
    "F": lambda: Book.objects.filter(title=F("summary")),
    "annotate": lambda: Book.objects.annotate(x=F("summary")),
    "aggregate": lambda: Book.objects.aggregate(Max("summary")),
    "distinct": lambda: list(Book.objects.order_by("summary").distinct()),
    "subquery": lambda: list(Author.objects.annotate(x=Subquery(Book.objects.filter(title=OuterRef("edited__note"))))),
    "filtered relation": lambda: list(
        Publisher.objects.annotate(x=FilteredRelation("books", condition=Q(books__title="x"))).filter(x__title="x")
    ),
    "select_related": lambda: list(Book.objects.select_related("publisher")),
    "prefetch_related": lambda: list(Book.objects.prefetch_related("tags")),
    "prefetch_related one": lambda: list(Book.objects.prefetch_related("publisher")),
    "prefetch_related reverse": lambda: list(Publisher.objects.prefetch_related("books")),
    "in_bulk": lambda: Book.objects.in_bulk([1], field_name="rating"),
    "update": lambda: Book.objects.update(summary="x"),
    "update from": lambda: Book.objects.update(title=F("summary")),
    "update child": lambda: Atlas.objects.update(summary="x"),
    "bulk_update": lambda: Book.objects.bulk_update([first()], ["summary"]),
    "bulk_create conflict": lambda: Book.objects.bulk_create(
        [Book(title="x")], update_conflicts=True, update_fields=["title"], unique_fields=["rating"]
    ),
    "refresh_from_db": lambda: first().refresh_from_db(fields=["summary"]),
    "save": lambda: first().save(update_fields=["summary"]),
    "latest": lambda: Book.objects.latest("summary"),
    "acreate": lambda: asyncio.run(awaited(Book.objects.acreate(title="x", summary="x"))),
    "aupdate": lambda: asyncio.run(awaited(Book.objects.aupdate(summary="x"))),
    "aget": lambda: asyncio.run(awaited(Book.objects.aget(summary="x"))),
}

MODELS = {
    "all": lambda: Loan.plain.all(),
    "default": lambda: Loan._default_manager.all(),
    "custom": lambda: Loan.open.count(),
    "queryset's": lambda: Loan.objects.long(),
    "create": lambda: Loan.objects.create(author=Author.objects.first()),
    "bulk_create": lambda: Loan.objects.bulk_create([Loan(author_id=1)]),
    "related": lambda: Author.objects.first().loans.all(),
    "related add": lambda: Author.objects.first().loans.create(days=1),
    "prefetch_related": lambda: list(Author.objects.prefetch_related("loans")),
    "save": lambda: Loan(author=Author.objects.first()).save(),
    "asave": lambda: asyncio.run(awaited(Loan(author_id=1).asave())),
    "acount": lambda: asyncio.run(awaited(Loan.plain.acount())),
}


def outcomes(cases):
    return {name: outcome(case) for name, case in cases.items()}


def outcome(case):
    """Return the error, whether it names this case's line, what was warned of, and whether that was for this line."""
    first = case.__code__.co_firstlineno
    lines = [*range(first, first + 3), awaited.__code__.co_firstlineno + 1]
    error = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            with transaction.atomic():
                case()
                transaction.set_rollback(True)
        except Exception as raised:
            error = raised
    return [
        error and type(error).__name__,
        getattr(error, "place", None) in [f"{__file__}:{line}" for line in lines],
        sorted({str(warning.message) for warning in caught if warning.category is DeprecationWarning}),
        all(warning.filename == __file__ and warning.lineno in lines for warning in caught),
    ]


print(json.dumps({"fields": outcomes(FIELDS), "models": outcomes(MODELS)}, indent=1))

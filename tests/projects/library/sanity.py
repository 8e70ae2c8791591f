"""What goes on as if nothing were deprecated, each claim by its name."""

import asyncio
import copy
import json
import pickle
from io import StringIO
from pathlib import Path

from demo.models import Atlas, Author, Book, Cover, Loan, Printed, Publisher, Tag
from django.contrib import admin
from django.contrib.admin.sites import AdminSite
from django.core import serializers
from django.core.management import call_command
from django.db import connection, models, transaction
from django.db.models import F, Q
from django.forms import modelform_factory
from django.test.utils import CaptureQueriesContext

DEPRECATED = ("summary", "stars", "publisher_id", "cover_id", "shelf", "stock", "note")


def book():
    return Book.objects.get(title="first")


def row():
    with connection.cursor() as cursor:
        cursor.execute("SELECT title, summary, stars, shelf, stock, pages FROM demo_book ORDER BY id")
        return [list(row) for row in cursor.fetchall()]


def statements(action):
    with CaptureQueriesContext(connection) as context:
        action()
    return [query["sql"] for query in context.captured_queries]


def naming(action):
    """Return which deprecated columns the statements of an action name."""
    text = " ".join(statements(action))
    return [name for name in DEPRECATED if f'"{name}"' in text or f"`{name}`" in text]


def full(**values):
    return {"title": "new", "pages": 1, "isbn": "1", "editor": Author.objects.first(), **values}


def case(function):
    CASES[function.__name__] = function


CASES = {}


@case
def loading_selects_no_deprecated_column():
    return naming(lambda: [*Book.objects.all(), *Atlas.objects.all(), *Printed.objects.all(), *Book.objects.values()])


@case
def saving_names_no_deprecated_column():
    def save():
        first = book()
        first.pages, first.editor, first.isbn = 3, Author.objects.get(), ""
        first.save()
        Book.objects.create(**full())
        Book.objects.bulk_create([Book(**full())])
        atlas = Atlas.objects.get()
        atlas.pages, atlas.editor, atlas.isbn = 3, Author.objects.get(), ""
        atlas.save()

    return naming(save)


@case
def saving_leaves_what_the_old_release_wrote():
    first = book()
    first.title, first.pages, first.isbn, first.editor = "changed", 9, "", Author.objects.get()
    first.save()
    return row()[0]


@case
def a_new_row_has_nothing_or_the_databases_default():
    Book.objects.create(**full())
    return row()[-1]


@case
def the_class_and_its_options_know_their_fields():
    names = ["summary", "rating", "publisher", "publisher_id", "cover", "tags", "shelf"]
    return [
        all(hasattr(model, name) for model in (Book, Atlas, Printed) for name in names),
        all(hasattr(Publisher, name) for name in ["books"]),
        [Book._meta.get_field(name).name for name in names],
        Book.publisher.field.related_model.__name__,
        Book.tags.through.__name__,
        [field.name for field in Book._meta.get_fields() if not field.auto_created],
        type(Book._meta.get_field("summary")).__name__,
        isinstance(Book._meta.get_field("publisher"), models.ForeignKey),
        Book._meta.get_field("rating").unique,
        [field.name for field in Publisher._meta.related_objects],
    ]


@case
def instances_are_copied_pickled_and_refreshed():
    first = book()
    for other in (copy.copy(first), copy.deepcopy(first), pickle.loads(pickle.dumps(first))):
        assert other == first
    Book.objects.filter(pk=first.pk).update(title="changed")
    first.refresh_from_db()
    asyncio.run(first.arefresh_from_db()) if not connection.in_atomic_block else None
    queryset = pickle.loads(pickle.dumps(Book.objects.filter(title="changed")))
    return [first.title, [each.title for each in queryset], str(first), sorted(first.get_deferred_fields())]


@case
def whatever_is_not_deprecated_can_be_queried():
    queryset = Book.objects.filter(Q(title="first"), pages=None).annotate(x=F("title")).order_by("row")
    return [
        list(queryset.values("x", "row")),
        list(queryset.only("title").values_list("title", flat=True)),
        [each.title for each in Book.objects.defer("row").select_related("editor").order_by("title")],
        [each.title for each in Book.objects.select_related().order_by("title")],
        Atlas.objects.filter(title="atlas").count(),
    ]


@case
def forms_and_validation_pass_it_by():
    form = modelform_factory(Book, fields="__all__")
    data = {"row": 1, "title": "form", "pages": 3, "isbn": "", "editor": Author.objects.get().pk}
    filled = form(data)
    assert filled.is_valid(), filled.errors
    saved = filled.save()
    saved.full_clean()
    empty = form({**data, "pages": ""})
    return [list(form.base_fields), saved.isbn, empty.errors, [*form(instance=book()).initial]]


@case
def the_admin_shows_and_deletes():
    site = AdminSite()
    site.register(Book)
    fields = [*site._registry[Book].get_form(None).base_fields]
    from django.contrib.admin.utils import get_deleted_objects

    class Request:
        class user:
            has_perm = staticmethod(lambda *_: True)

    shown, counts, _, protected = get_deleted_objects(Publisher.objects.all(), Request, site)
    return [
        fields,
        len(shown),
        {str(k): v for k, v in counts.items()},
        protected,
        [error.id for error in site.check(None)],
    ]


@case
def what_is_dumped_is_loaded():
    first = book()
    text = StringIO()
    call_command("dumpdata", "demo", stdout=text)
    rows = json.loads(text.getvalue())
    Path("dumped.json").write_text(text.getvalue())
    call_command("loaddata", "dumped.json", verbosity=0)
    names = [name for row in rows if row["model"] == "demo.book" for name in row["fields"]]
    return [
        sorted(set(names)),
        sorted({row["model"] for row in rows}),
        row()[0],
        json.loads(serializers.serialize("json", [first]))[0]["fields"],
    ]


@case
def a_fixture_with_a_deprecated_value_is_refused():
    Path("old.json").write_text('[{"model": "demo.book", "pk": 9, "fields": {"title": "x", "summary": "y"}}]')
    try:
        call_command("loaddata", "old.json", verbosity=0)
    except Exception as error:
        return [type(error).__name__, type(error.__cause__).__name__]


@case
def raw_statements_give_rows_with_what_is_not_deprecated():
    return [[each.title, each.row, each.pages] for each in Book.objects.raw("SELECT * FROM demo_book ORDER BY id")]


@case
def what_deprecated_fields_refer_to_can_be_deleted():
    book().tags_ = None
    told = [Publisher.objects.all().delete()[1], Cover.objects.all().delete()[1], Tag.objects.first().delete()[1]]
    with connection.cursor() as cursor:
        cursor.execute("SELECT publisher_id, cover_id FROM demo_book")
        return [told, [list(row) for row in cursor.fetchall()]]


@case
def what_a_deprecated_model_refers_to_takes_its_rows_along():
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM demo_loan")
        before = cursor.fetchone()[0]
        told = Author.objects.all().delete()[1]
        cursor.execute("SELECT count(*) FROM demo_loan")
        return [before, told, cursor.fetchone()[0]]


@case
def a_new_field_may_be_cascaded_over():
    author = Author.objects.create(name="b")
    Book.objects.create(**full(editor=author))
    return author.delete()[1]


@case
def managers_know_their_model():
    return [
        [manager.name for manager in Loan._meta.managers],
        [manager.model.__name__ for manager in Loan._meta.managers],
        Loan._default_manager.name,
        Loan.open.model is Loan,
        Loan.objects.deconstruct()[2],
        type(Loan.open).__name__,
        Loan._base_manager.count(),
    ]


def told(function):
    try:
        with transaction.atomic():
            result = function()
            transaction.set_rollback(True)
            return result
    except Exception as error:
        import traceback

        return traceback.format_exc().splitlines()[-4:]


print(json.dumps({name: told(function) for name, function in CASES.items()}, default=str, indent=1))

"""What is deprecated with a warning alone works on, and whoever does not use it hears nothing."""

import copy
import json
import pickle
import warnings

from demo.models import Author, Book, Loan, Publisher, Tag
from django.core import serializers
from django.db import connection, transaction
from django.forms import modelform_factory
from django.template import Context, Engine


def counted(action):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = action()
    return [result, sorted({str(each.message) for each in caught})]


def full(**values):
    return {"title": "new", "pages": 1, "isbn": "", "editor": Author.objects.first(), **values}


def others():
    book = Book.objects.get(title="first")
    book.title, book.pages, book.isbn, book.editor = "changed", 2, "", Author.objects.first()
    book.save()
    book.refresh_from_db()
    pickle.loads(pickle.dumps(copy.copy(book)))
    new = Book.objects.create(**full(title="another"))
    Book.objects.bulk_create([Book(**full(title="bulk"))])
    Book.objects.filter(pk=new.pk).update(row=3)
    form = modelform_factory(Book, fields="__all__")(instance=book)
    serializers.serialize("json", Book.objects.all())
    return [book.title, len(form.fields), Author.objects.create(name="x").delete()[0]]


def create():
    book = Book.objects.create(**full(summary="mine", publisher=Publisher.objects.first(), stock=2))
    return [book.summary, book.publisher.name, book.stock, book.shelf]


def change():
    book = Book.objects.get(title="new")
    book.summary = "changed"
    book.save()
    Book.objects.filter(summary="changed").update(shelf=8)
    book.tags.add(Tag.objects.first())
    with connection.cursor() as cursor:
        cursor.execute("SELECT summary, shelf, stock FROM demo_book WHERE title = 'new'")
        return [list(cursor.fetchone()), book.tags.count(), Tag.objects.first().books.count()]


def render():
    return Engine().from_string("{{ book.summary }}").render(Context({"book": Book.objects.get(title="first")}))


def model():
    loan = Loan(author=Author.objects.first(), days=3)
    loan.save()
    return Loan.plain.count()


with transaction.atomic():
    told = {
        "render": counted(render),
        "others": counted(others),
        "create": counted(create)[0],
        "change": counted(change)[0],
        "model": counted(model),
    }
    transaction.set_rollback(True)
print(json.dumps(told))

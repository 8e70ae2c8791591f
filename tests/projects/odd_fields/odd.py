"""What these models do."""

import json
import pickle

from demo.models import Child, Fresh, Item, Note, Parent
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.forms import modelform_factory

from smooth_migrations.exceptions import FieldDeprecatedException

told = {}

item = Item.objects.create()
Item.objects.create()
item.full_clean()
item.save()
item.refresh_from_db()
told["item"] = [sorted(set(vars(item)) - {"_state", "_prefetched_objects_cache"}), Item.objects.count()]
with connection.cursor() as cursor:
    cursor.execute("SELECT b, file, date, twice, itself_id, parent_id FROM demo_item ORDER BY id")
    told["row"] = cursor.fetchone()

form = modelform_factory(Item, fields="__all__")({"a": 3})
told["form"] = [list(form.fields), form.is_valid(), form.save().a]

parent = Parent.objects.create(name="y")
with connection.cursor() as cursor:
    cursor.execute("INSERT INTO demo_child (parent_id) VALUES (%s)", [parent.pk])
    cursor.execute("UPDATE demo_item SET parent_id = 'y', itself_id = id")
told["deleted"] = [parent.delete()[1], Item.objects.filter(pk=item.pk).delete()[1]]
with connection.cursor() as cursor:
    cursor.execute("SELECT parent_id FROM demo_item")
    rows = cursor.fetchall()
    cursor.execute("SELECT parent_id FROM demo_child")
    told["left"] = [rows, cursor.fetchall()]

form = modelform_factory(Fresh, fields="__all__")({"values": '{"b": 2}', "number": 1, "by_database": 2})
fresh = form.save()
fresh.refresh_from_db()
other = Fresh.objects.create(values={}, file="", text="")
other.refresh_from_db()
told["fresh"] = [form.errors, fresh.text, fresh.by_database, other.number, other.by_database, other.changed is not None]


def refused(use):
    try:
        use()
    except FieldDeprecatedException as error:
        return error.field


parent = Parent.objects.create(name="z")
note = Note.objects.create(kind=ContentType.objects.get_for_model(Parent), number=parent.pk)
told["generic"] = [
    refused(lambda: parent.notes),
    refused(lambda: Parent.objects.filter(notes__number=1)),
    refused(lambda: note.about),
    refused(lambda: Note(about=parent)),
    parent.delete()[1],
]

field = Item._meta.get_field("itself")
told["pickled"] = pickle.loads(pickle.dumps(field)) is field
print(json.dumps(told))

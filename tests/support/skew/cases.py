"""Kinds of change, each between two releases of an app."""

from typing import Final

from tests.support.skew.releases import Skew

__all__ = ["CASES"]

_KIND = """\
class Kind(Row):
    label = models.CharField(max_length=20)


"""
_ITEM = """\
class Item(Row):
    name = models.CharField(max_length=40)
    kind = models.ForeignKey(Kind, models.CASCADE)
"""
_PLAIN = f"{_KIND}{_ITEM}"
_STAMPED = (
    "('id', models.BigAutoField(primary_key=True, serialize=False, auto_created=True, verbose_name='ID')), "
    "('by', models.CharField(max_length=8)), ('stamp', models.IntegerField())"
)
_TO_ITEM = "models.ForeignKey('demo.item', models.CASCADE)"
_REQUIRED = "ForeignKey(Kind, models.CASCADE, related_name='more')"
_OTHER = "ForeignKey(Kind, models.SET_NULL, null=True, related_name='more')"
_LOUD = "GeneratedField(expression=Upper('name'), output_field=models.TextField(), db_persist=True)"
_PROXY = {"proxy": True, "indexes": [], "constraints": []}
_TAGGED = f"{_PLAIN}    tags = models.ManyToManyField(Kind, related_name='tagged')\n"
_BY_KEY = """\
class Part(Row):
    pk = models.CompositePrimaryKey("by", "stamp")
    name = models.CharField(max_length=40)
"""
_SPECIAL = f"{_PLAIN}\n\nclass Special(Item):\n    extra = models.CharField(max_length=40)\n"
_GENERIC = f"""\
{_PLAIN}

class Note(Row):
    TARGET = "Item"
    content_type = models.ForeignKey(ContentType, models.CASCADE)
    object_id = models.BigIntegerField()
    target = GenericForeignKey()
    text = models.CharField(max_length=40)
"""
_ONE = "models.UniqueConstraint(fields=['name', 'stamp'], name='one')"
_EVEN = "models.CheckConstraint(condition=Q(price__gte=0), name='even')"


def _field(source: str, name: str = "price") -> str:
    return f"{_PLAIN}    {name} = models.{source}\n"


def _altered(old: str, new: str) -> Skew:
    return Skew(_field(old), _field(new), (f"migrations.AlterField('item', 'price', models.{new})",))


CASES: Final = {
    "add a field": Skew(
        _PLAIN,
        _field("IntegerField(default=7)"),
        ("migrations.AddField('item', 'price', models.IntegerField(default=7))",),
        own={"new": ("Item.price",)},
    ),
    "add a nullable field": Skew(
        _PLAIN,
        _field("TextField(null=True)"),
        ("migrations.AddField('item', 'price', models.TextField(null=True))",),
        own={"new": ("Item.price",)},
    ),
    "add a field with a default of the database": Skew(
        _PLAIN,
        _field("IntegerField(db_default=7)"),
        ("migrations.AddField('item', 'price', models.IntegerField(db_default=7))",),
        own={"new": ("Item.price",)},
    ),
    "remove a field": Skew(
        _field("IntegerField(default=7)"),
        _PLAIN,
        ("migrations.RemoveField('item', 'price')",),
        own={"old": ("Item.price",)},
    ),
    "rename a field": Skew(
        _field("IntegerField()"),
        _field("IntegerField()", "cost"),
        ("migrations.RenameField('item', 'price', 'cost')",),
    ),
    "rename a foreign key": Skew(
        _PLAIN,
        _PLAIN.replace("kind =", "sort ="),
        ("migrations.RenameField('item', 'kind', 'sort')",),
    ),
    "rename a model": Skew(
        _PLAIN,
        _PLAIN.replace("Item", "Thing"),
        ("migrations.RenameModel('Item', 'Thing')",),
    ),
    "rename a model that others refer to": Skew(
        _PLAIN,
        _PLAIN.replace("Kind", "Sort"),
        ("migrations.RenameModel('Kind', 'Sort')",),
    ),
    "a table by another name": Skew(
        _PLAIN,
        f"{_PLAIN}\n    class Meta:\n        db_table = 'things'\n",
        ("migrations.AlterModelTable('item', 'things')",),
    ),
    "add a model": Skew(
        _PLAIN,
        f"{_PLAIN}\n\nclass Note(Row):\n    item = models.ForeignKey(Item, models.CASCADE)\n",
        (f"migrations.CreateModel('Note', [{_STAMPED}, ('item', {_TO_ITEM})], options={{'abstract': False}})",),
    ),
    "delete a model": Skew(
        f"{_PLAIN}\n\nclass Note(Row):\n    item = models.ForeignKey(Item, models.CASCADE)\n",
        _PLAIN,
        ("migrations.DeleteModel('Note')",),
    ),
    "integers grow": _altered("IntegerField()", "BigIntegerField()"),
    "characters become text": _altered("CharField(max_length=20)", "TextField()"),
    "characters get fewer": _altered("CharField(max_length=40)", "CharField(max_length=20)"),
    "characters get more": _altered("CharField(max_length=20)", "CharField(max_length=40)"),
    "null is allowed": _altered("IntegerField()", "IntegerField(null=True)"),
    "null is not allowed": _altered("IntegerField(null=True)", "IntegerField(default=7)"),
    "no foreign key may be null": Skew(
        _field(f"{_REQUIRED.replace(')', ', null=True)')}", "other"),
        _field(_REQUIRED, "other"),
        (f"migrations.AlterField('item', 'other', models.{_REQUIRED.replace('Kind', repr('demo.kind'))})",),
    ),
    "unique": _altered("CharField(max_length=20)", "CharField(max_length=20, unique=True)"),
    "not unique": _altered("CharField(max_length=20, unique=True)", "CharField(max_length=20)"),
    "an index": _altered("CharField(max_length=20)", "CharField(max_length=20, db_index=True)"),
    "another default": Skew(
        _field("IntegerField(default=7)"),
        _field("IntegerField(default=8)").replace("max_length=20", "max_length=30"),
        (
            "migrations.AlterField('item', 'price', models.IntegerField(default=8))",
            "migrations.AlterField('kind', 'label', models.CharField(max_length=30))",
        ),
    ),
    "decimals grow": _altered(
        "DecimalField(max_digits=9, decimal_places=2)", "DecimalField(max_digits=12, decimal_places=2)"
    ),
    "remove a foreign key": Skew(
        _field("ForeignKey(Kind, models.CASCADE, null=True, related_name='more')", "other"),
        _PLAIN,
        ("migrations.RemoveField('item', 'other')",),
        own={"old": ("Item.other",)},
    ),
    "add a foreign key": Skew(
        _PLAIN,
        _field(_OTHER, "other"),
        (f"migrations.AddField('item', 'other', models.{_OTHER.replace('Kind', repr('demo.kind'))})",),
        own={"new": ("Item.other",)},
    ),
    "add many to many": Skew(
        _PLAIN,
        _TAGGED,
        ("migrations.AddField('item', 'tags', models.ManyToManyField('demo.kind', related_name='tagged'))",),
        own={"new": ("Item.tags",)},
    ),
    "remove many to many": Skew(
        _TAGGED, _PLAIN, ("migrations.RemoveField('item', 'tags')",), own={"old": ("Item.tags",)}
    ),
    "rename a model that has many to many": Skew(
        _TAGGED, _TAGGED.replace("Item", "Thing"), ("migrations.RenameModel('Item', 'Thing')",)
    ),
    "unique together": Skew(
        _PLAIN,
        f"{_PLAIN}\n    class Meta:\n        unique_together = [('name', 'stamp')]\n",
        ("migrations.AlterUniqueTogether('item', {('name', 'stamp')})",),
    ),
    "constraints": Skew(
        _field("IntegerField()"),
        f"{_field('IntegerField()')}\n    class Meta:\n        constraints = [{_ONE}, {_EVEN}]\n",
        (
            f"migrations.AddConstraint('item', {_ONE})",
            f"migrations.AddConstraint('item', {_EVEN.replace('Q(', 'models.Q(')})",
        ),
    ),
    "constraints no more": Skew(
        f"{_field('IntegerField()')}\n    class Meta:\n        constraints = [{_ONE}, {_EVEN}]\n",
        _field("IntegerField()"),
        ("migrations.RemoveConstraint('item', 'one')", "migrations.RemoveConstraint('item', 'even')"),
    ),
    "add a generated field": Skew(
        _PLAIN,
        _field(_LOUD, "loud"),
        (f"migrations.AddField('item', 'loud', models.{_LOUD.replace('Upper', 'models.functions.Upper')})",),
    ),
    "a composite key": Skew(
        _BY_KEY,
        f"{_BY_KEY}    size = models.IntegerField(default=7)\n",
        ("migrations.AddField('part', 'size', models.IntegerField(default=7))",),
        own={"new": ("Part.size",)},
    ),
    "rename a field of a parent": Skew(
        _SPECIAL, _SPECIAL.replace("name =", "title ="), ("migrations.RenameField('item', 'name', 'title')",)
    ),
    "add a field to a child": Skew(
        _SPECIAL,
        f"{_SPECIAL}    size = models.IntegerField(default=7)\n",
        ("migrations.AddField('special', 'size', models.IntegerField(default=7))",),
        own={"new": ("Special.size",)},
    ),
    "a proxy": Skew(
        _PLAIN,
        f"{_PLAIN}\n\nclass Proxy(Item):\n    class Meta:\n        proxy = True\n",
        (f"migrations.CreateModel('Proxy', [], options={_PROXY}, bases=('demo.item',))",),
    ),
    "a generic foreign key": Skew(
        _GENERIC,
        _GENERIC.replace("text =", "words ="),
        ("migrations.RenameField('note', 'text', 'words')",),
    ),
    "a generic foreign key to a renamed model": Skew(
        _GENERIC, _GENERIC.replace("Item", "Thing"), ("migrations.RenameModel('Item', 'Thing')",)
    ),
    "rename a model, and another one beside": Skew(
        _PLAIN,
        _PLAIN.replace("Item", "Thing").replace("label = ", "size = models.IntegerField(default=7)\n    label = ")
        + "    price = models.IntegerField(default=7)\n",
        (
            "migrations.RenameModel('Item', 'Thing')",
            "migrations.AddField('kind', 'size', models.IntegerField(default=7))",
            "migrations.AddField('thing', 'price', models.IntegerField(default=7))",
        ),
        own={"new": ("Kind.size", "Thing.price")},
    ),
    "several at once": Skew(
        _TAGGED + "    price = models.IntegerField(default=1)\n",
        _PLAIN.replace("name =", "title =") + "    size = models.IntegerField(default=7)\n"
        "    code = models.CharField(max_length=20, null=True, unique=True)\n",
        (
            "migrations.RenameField('item', 'name', 'title')",
            "migrations.RemoveField('item', 'tags')",
            "migrations.RemoveField('item', 'price')",
            "migrations.AddField('item', 'size', models.IntegerField(default=7))",
            "migrations.AddField('item', 'code', models.CharField(max_length=20, null=True, unique=True))",
        ),
        own={"old": ("Item.tags", "Item.price"), "new": ("Item.size", "Item.code")},
    ),
}

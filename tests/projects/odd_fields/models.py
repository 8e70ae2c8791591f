"""Fields of kinds that do more than hold a value, and models that say more of them in their Meta."""

from django.contrib.contenttypes.fields import GenericForeignKey, GenericRelation
from django.contrib.contenttypes.models import ContentType
from django.db import models

from smooth_migrations.fields import deprecated_field, new_field
from smooth_migrations.models import backward_compatible_model, deprecate_model


def some_values():
    return {"a": 1}


class Note(models.Model):
    kind = models.ForeignKey(ContentType, models.CASCADE)
    number = models.IntegerField()
    about = deprecated_field(GenericForeignKey("kind", "number"))


class Parent(models.Model):
    name = models.CharField(max_length=10, unique=True)
    notes = deprecated_field(GenericRelation(Note, content_type_field="kind", object_id_field="number"))


@deprecate_model
class Child(models.Model):
    parent = deprecated_field(models.ForeignKey(Parent, models.CASCADE))

    class Meta:
        base_manager_name = "objects"


class Item(models.Model):
    a = models.IntegerField(default=1)
    day = models.DateField(null=True, blank=True)
    b = deprecated_field(models.IntegerField(default=1))
    file = deprecated_field(models.FileField())
    values = deprecated_field(models.JSONField(default=some_values))
    changed = deprecated_field(models.DateTimeField(auto_now=True))
    date = deprecated_field(models.CharField(max_length=4, unique_for_date="day"))
    twice = deprecated_field(
        models.GeneratedField(expression=models.F("a") * 2, output_field=models.IntegerField(), db_persist=True)
    )
    itself = deprecated_field(models.ForeignKey("self", models.CASCADE, related_name="+"))
    parent = deprecated_field(
        models.ForeignKey(Parent, models.SET_DEFAULT, default="x", to_field="name", db_constraint=False)
    )
    others = deprecated_field(models.ManyToManyField("self"))
    parents = deprecated_field(models.ManyToManyField(Parent, through="Between", related_name="items"))

    class Meta:
        unique_together = [("a", "b")]
        constraints = [
            models.UniqueConstraint(fields=["day", "b"], name="day_and_b"),
            models.CheckConstraint(condition=models.Q(b__gt=0), name="positive_b"),
        ]
        indexes = [models.Index(fields=["b"], name="index_b")]


class Between(models.Model):
    item = models.ForeignKey(Item, models.CASCADE, related_name="+")
    parent = models.ForeignKey(Parent, models.CASCADE)


@backward_compatible_model
class Fresh(models.Model):
    values = new_field(models.JSONField())
    changed = new_field(models.DateTimeField(auto_now=True))
    number = new_field(models.IntegerField(default=4))
    by_database = new_field(models.IntegerField(db_default=5))
    file = new_field(models.FileField(blank=True))
    text = new_field(models.TextField(blank=True))

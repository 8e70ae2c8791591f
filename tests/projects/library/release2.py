"""The models as the new release has them, while the old one still runs."""

import secrets

from django.core.validators import MinValueValidator
from django.db import models

from smooth_migrations.fields import deprecated_field, new_field
from smooth_migrations.models import backward_compatible_model, deprecated_model


def some_rating():
    return 100 + secrets.randbelow(1_000_000_000)


class Publisher(models.Model):
    name = models.CharField(max_length=40)


class Cover(models.Model):
    colour = models.CharField(max_length=40)


class Tag(models.Model):
    name = models.CharField(max_length=40)


class Author(models.Model):
    name = models.CharField(max_length=40)


class Shelved(models.Model):
    shelf = deprecated_field(models.IntegerField())
    row = models.IntegerField(default=1)

    class Meta:
        abstract = True


@backward_compatible_model
class Book(Shelved):
    title = models.CharField(max_length=40)
    summary = deprecated_field(models.CharField(max_length=40))
    rating = deprecated_field(
        models.IntegerField(
            choices=[(1, "poor"), (2, "good")],
            unique=True,
            db_column="stars",
            default=some_rating,
            validators=[MinValueValidator(1)],
        )
    )
    publisher = deprecated_field(models.ForeignKey(Publisher, models.CASCADE, related_name="books"))
    cover = deprecated_field(models.OneToOneField(Cover, models.PROTECT))
    tags = deprecated_field(models.ManyToManyField(Tag, related_name="books"))
    stock = deprecated_field(models.IntegerField(db_default=7))
    note = deprecated_field(models.TextField(null=True))
    pages = new_field(models.IntegerField())
    isbn = new_field(models.CharField(max_length=13, blank=True))
    editor = new_field(models.ForeignKey(Author, models.CASCADE, related_name="edited"))


class Atlas(Book):
    scale = models.IntegerField(default=1)


class Printed(Book):
    class Meta:
        proxy = True


class LoanQuerySet(models.QuerySet):
    def long(self):
        return self.filter(days__gt=30)


class OpenLoans(models.Manager):
    def get_queryset(self):
        return super().get_queryset().filter(days__gt=0)


@deprecated_model
class Loan(models.Model):
    author = models.ForeignKey(Author, models.CASCADE, related_name="loans")
    days = models.IntegerField(default=14)

    open = OpenLoans()
    objects = LoanQuerySet.as_manager()
    plain = models.Manager()

"""The models as the old release has them."""

import secrets

from django.core.validators import MinValueValidator
from django.db import models


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
    shelf = models.IntegerField()
    row = models.IntegerField(default=1)

    class Meta:
        abstract = True


class Book(Shelved):
    title = models.CharField(max_length=40)
    summary = models.CharField(max_length=40)
    rating = models.IntegerField(
        choices=[(1, "poor"), (2, "good")],
        unique=True,
        db_column="stars",
        default=some_rating,
        validators=[MinValueValidator(1)],
    )
    publisher = models.ForeignKey(Publisher, models.CASCADE, related_name="books")
    cover = models.OneToOneField(Cover, models.PROTECT)
    tags = models.ManyToManyField(Tag, related_name="books")
    stock = models.IntegerField(db_default=7)
    note = models.TextField(null=True)


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


class Loan(models.Model):
    author = models.ForeignKey(Author, models.CASCADE, related_name="loans")
    days = models.IntegerField(default=14)

    open = OpenLoans()
    objects = LoanQuerySet.as_manager()
    plain = models.Manager()

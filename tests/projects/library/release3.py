"""The models as the release after that has them: without wrappers, and without what was deprecated."""

import secrets

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
    row = models.IntegerField(default=1)

    class Meta:
        abstract = True


class Book(Shelved):
    title = models.CharField(max_length=40)
    pages = models.IntegerField()
    isbn = models.CharField(max_length=13, blank=True)
    editor = models.ForeignKey(Author, models.CASCADE, related_name="edited")


class Atlas(Book):
    scale = models.IntegerField(default=1)


class Printed(Book):
    class Meta:
        proxy = True

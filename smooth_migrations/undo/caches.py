"""What Django remembers of rows that an undo has taken away."""

from django.apps import apps

__all__ = ["forget_content_types"]


def forget_content_types() -> None:
    """Forget the content types: those that were made inside the transaction do not exist any more. Safe to repeat."""
    if apps.is_installed("django.contrib.contenttypes"):
        from django.contrib.contenttypes.models import ContentType  # noqa: PLC0415 - a model of an optional app

        ContentType.objects.clear_cache()

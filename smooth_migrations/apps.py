"""The Django application: commands, checks and helpers."""

from django.apps import AppConfig

__all__ = ["SmoothMigrationsConfig"]


class SmoothMigrationsConfig(AppConfig):
    """`smooth_migrations` in INSTALLED_APPS. It has no models and no migrations of its own."""

    name = "smooth_migrations"
    verbose_name = "Smooth migrations"

    def ready(self) -> None:
        """Register the system checks."""
        from smooth_migrations.checks import register_checks  # noqa: PLC0415 - needs the registry of models

        register_checks()

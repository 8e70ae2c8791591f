"""Projects with Django's admin, and what runs leave for its pages to show."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.support.histories import Database, execute
from tests.support.small_project import SmallProject, migration

__all__ = ["HOSTILE", "PAGES", "admin_site", "left_by_runs"]

PAGES: Final = tuple(f"smooth_migrations/{name}/" for name in ("marker", "journalstep", "heldback"))
"""The paths of the pages below `/admin/`: of the runs, the steps and the operations held back."""

HOSTILE: Final = "<script>alert(1)</script><img src=x onerror=alert(2)>"
"""The name that everything has that `left_by_runs` writes, and that is of free choice."""

_INSTALLED: Final = (
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
)
_SETTINGS: Final = """\
DEBUG = True
ROOT_URLCONF = "urls"
ALLOWED_HOSTS = ["*"]
STATIC_URL = "/static/"
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [{
    "BACKEND": "django.template.backends.django.DjangoTemplates",
    "APP_DIRS": True,
    "OPTIONS": {"context_processors": [
        "django.template.context_processors.request",
        "django.contrib.auth.context_processors.auth",
        "django.contrib.messages.context_processors.messages",
    ]},
}]
"""
_URLS: Final = """\
from django.contrib import admin
from django.http import HttpResponse
from django.urls import path

urlpatterns = [path("admin/", admin.site.urls), path("favicon.ico", lambda request: HttpResponse(status=204))]
"""
_ITEM: Final = migration(
    "migrations.CreateModel('Item', [('id', models.BigAutoField(primary_key=True)), "
    "('name', models.CharField(max_length=9)), ('old', models.CharField(max_length=9))])"
)


def admin_site(
    directory: Path, databases: Mapping[str, Mapping[str, Any]], *migrated: str, settings: str = ""
) -> SmallProject:
    """Write a project with an admin, and migrate some of its databases.

    Args:
        directory: an empty one.
        databases: its `settings.DATABASES`.
        *migrated: the aliases that are migrated.
        settings: further lines of its settings module.
    """
    project = SmallProject(
        directory, databases, {"demo.0001_item": _ITEM}, installed=_INSTALLED, settings=_SETTINGS + settings
    )
    project.write("urls.py", _URLS)
    for alias in migrated:
        project.succeed("migrate", "--database", alias, "--verbosity", "0")
    return project


def left_by_runs(database: Database) -> None:
    """Write what a run of the orchestrator, a killed call and an operation held back leave in a database."""
    execute(
        database,
        f"""
        CREATE TABLE smooth_migrations_marker (deploy varchar(255), run_id varchar(64), database_name text,
            epoch bigint, digest varchar(64), command varchar(16), moved_at timestamp DEFAULT CURRENT_TIMESTAMP);
        INSERT INTO smooth_migrations_marker (deploy, run_id, database_name, epoch, digest, command)
            VALUES ('{HOSTILE}', 'friday', 'primary', 7, '', 'deploy');
        CREATE TABLE smooth_migrations_journal (seq bigint, call_id varchar(64), app varchar(255), name varchar(255),
            operation integer, backwards smallint, fake smallint, state varchar(16), detail text);
        INSERT INTO smooth_migrations_journal VALUES (1, 'c1', '{HOSTILE}', '0002_goes', 0, 0, 0, 'begun', 'a row');
        """,
    )

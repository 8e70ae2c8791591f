"""Pages of Django's admin that show what the product keeps in each database. They only read.

The models are in a registry of their own: no `makemigrations` sees them, and no `migrate` makes content types and
permissions of them. Django imports this module where `django.contrib.admin` is installed.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Final

from django.apps.registry import Apps, apps
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections, models, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.urls import URLPattern
from django.utils import timezone

from smooth_migrations.own_tables import find_table
from smooth_migrations.reaching import knock, limit_waits

__all__ = ["ContractAdmin", "JournalAdmin", "MarkerAdmin", "register"]

if TYPE_CHECKING:
    from datetime import datetime

    _ModelAdmin = admin.ModelAdmin[Any]
    _Chars = models.CharField[str, str]
    _Text = models.TextField[str, str]
    _Number = models.IntegerField[int, int]
    _Long = models.BigIntegerField[int, int]
    _Flag = models.BooleanField[bool, bool]
    _DateTimeField = models.DateTimeField[datetime, datetime]
else:  # Django's own take no parameters
    _ModelAdmin = admin.ModelAdmin
    _DateTimeField = models.DateTimeField

_PARAMETER: Final = "database"
_NO_ENGINE: Final = "django.db.backends.dummy"
_apart: Final = Apps()
# The app's own name stands above its pages.
_apart.app_configs |= {"smooth_migrations": apps.get_app_config("smooth_migrations")}


class _Moment(_DateTimeField):
    """A moment of a column without a time zone too, which has that of the sessions that the project opens."""

    def from_db_value(
        self, value: "datetime | None", expression: object, connection: BaseDatabaseWrapper
    ) -> "datetime | None":
        del expression
        if value is None or not settings.USE_TZ or timezone.is_aware(value):
            return value
        return timezone.make_aware(value, connection.timezone)


class _Apart:
    """What the models have in common."""

    apps = _apart
    app_label = "smooth_migrations"
    managed = False


class Marker(Model):
    """A run that has moved a database."""

    run_id: "_Chars" = models.CharField(
        "run", max_length=64, primary_key=True
    )  # of one deploy; nothing is looked up by it
    deploy: "_Chars" = models.CharField(max_length=255)
    database_name: "_Text" = models.TextField("database")
    command: "_Chars" = models.CharField(max_length=16)
    epoch: "_Long" = models.BigIntegerField()
    moved_at = _Moment()

    class Meta(_Apart):
        db_table = "smooth_migrations_marker"
        verbose_name = "run that moved a database"
        verbose_name_plural = "runs that moved a database"


class JournalStep(Model):
    """A step of a call that is at work, or was killed."""

    # What an undo needs (`detail`) may hold rows of a project's: it is not shown.
    seq: "_Long" = models.BigIntegerField(primary_key=True)
    call_id: "_Chars" = models.CharField("call", max_length=64)
    app: "_Chars" = models.CharField(max_length=255)
    name: "_Chars" = models.CharField("migration", max_length=255)
    operation: "_Number" = models.IntegerField()
    backwards: "_Flag" = models.BooleanField()
    fake: "_Flag" = models.BooleanField()
    state: "_Chars" = models.CharField(max_length=16)

    class Meta(_Apart):
        db_table = "smooth_migrations_journal"
        verbose_name = "step of a call that has not ended"
        verbose_name_plural = "steps of a call that has not ended"


class HeldBack(Model):
    """A contract half."""

    seq: "_Long" = models.BigIntegerField(primary_key=True)
    run_id: "_Chars" = models.CharField("run", max_length=64)
    app: "_Chars" = models.CharField(max_length=255)
    name: "_Chars" = models.CharField("migration", max_length=255)
    operation: "_Number" = models.IntegerField()
    kind: "_Chars" = models.CharField(max_length=64)
    description: "_Text" = models.TextField()
    since = _Moment()

    class Meta(_Apart):
        db_table = "smooth_migrations_contract"
        verbose_name = "operation held back"
        verbose_name_plural = "operations held back"


class _Database(admin.SimpleListFilter):
    """Which alias is shown: always one."""

    title = "database"
    parameter_name = _PARAMETER

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:  # noqa: ANN401 - of any model
        del request, model_admin
        return [(alias, alias) for alias in _aliases()]

    def has_output(self) -> bool:
        return len(_aliases()) > 1

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        del request
        return queryset  # it is of that database already

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        chosen = _alias(self.value())
        for alias, title in self.lookup_choices:
            query = changelist.get_query_string({_PARAMETER: alias}, ["p"])
            yield {"selected": alias == chosen, "query_string": query, "display": title}


class _ReadOnly(_ModelAdmin):
    """One list, of the alias that is chosen; for superusers, and whoever has the permission to view it."""

    actions = None
    list_display_links = None
    list_filter: ClassVar[Any] = (_Database,)
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER  # an alias's own rows are the only ones

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody may."""
        del request
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Nobody may."""
        del request, obj
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Nobody may."""
        del request, obj
        return False

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Whoever has it, by the name of the page: `smooth_migrations.view_marker` and so on."""
        del obj
        # Whatever takes the place of Django's user has it too, or the admin would let nobody in.
        user: Any = request.user
        return bool(user.has_perm(f"smooth_migrations.view_{self.opts.model_name}"))

    def get_urls(self) -> list[URLPattern]:
        """Return that of the list alone."""
        return [url for url in super().get_urls() if str(url.name).endswith("_changelist")]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Return the rows of the alias that is chosen; none where it has no such table yet, or cannot be asked."""
        alias = _alias(request.GET.get(_PARAMETER))
        rows: QuerySet[Any] = self.model._default_manager.using(alias)  # noqa: SLF001 - Django's public name
        try:
            knock(connections[alias])
            # A failed query would spoil the transaction of a project that has one for each request.
            with transaction.atomic(using=alias):
                limit_waits(connections[alias])
                # Whoever serves pages is often another one than whoever deploys, and may see a table but not read it.
                is_there = find_table(connections[alias], self.opts.db_table) and rows.exists()
        except DatabaseError:
            messages.error(request, f"The database “{alias}”{_place(alias)} cannot be asked.")
            is_there = None
        return rows if is_there else rows.none()


class MarkerAdmin(_ReadOnly):
    """The runs that have moved a database, the newest first."""

    list_display = ("run_id", "deploy", "command", "database_name", "epoch", "moved_at")
    ordering = ("-moved_at",)


class JournalAdmin(_ReadOnly):
    """What calls at work, or killed, have made permanent so far."""

    list_display = ("call_id", "app", "name", "operation", "backwards", "fake", "state")
    ordering = ("seq",)


class ContractAdmin(_ReadOnly):
    """What is held back, in the order in which it was."""

    list_display = ("app", "name", "description", "kind", "run_id", "since")
    ordering = ("seq",)


_PAGES: Final = {Marker: MarkerAdmin, JournalStep: JournalAdmin, HeldBack: ContractAdmin}


def register(site: admin.AdminSite) -> None:
    """Add the pages to a site; the default one has them."""
    for model, page in _PAGES.items():
        site.register(model, page)


def _aliases() -> list[str]:
    """Return all but an empty `default`, which a project has whose every model is routed elsewhere."""
    return [alias for alias, database in connections.settings.items() if database["ENGINE"] != _NO_ENGINE]


def _place(alias: str) -> str:
    """Return where the server is, for a message; empty for one of this machine's files or sockets."""
    database = connections.settings[alias]
    host, port = str(database.get("HOST") or ""), str(database.get("PORT") or "")
    return f" at {':'.join(part for part in (host, port) if part)}" if host else ""


def _alias(wanted: str | None) -> str:
    there = _aliases()
    return next(alias for alias in (wanted, DEFAULT_DB_ALIAS, *there) if alias in there)


register(admin.site)

"""What is looked at when `migrate` has made its plan, and nothing has run yet."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from django.apps import AppConfig, apps
from django.core.management.base import CommandError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations import Migration
from django.db.migrations.executor import MigrationExecutor

from smooth_migrations.call import Call
from smooth_migrations.errors import Irreversible
from smooth_migrations.exits import REFUSED
from smooth_migrations.reversibility import committed_early

if TYPE_CHECKING:
    from smooth_migrations.contract_queue import Queued
    from smooth_migrations.undo.choice import Choice

__all__ = ["Guard"]

Plan = Sequence[tuple[Migration, bool]]


class Guard:
    """A receiver of `pre_migrate`, which has the plan: refuses what could not be rolled back, before anything runs.

    Args:
        call: begun.
        connection: its target's.
        options: `fake`, `rehearse` and `allow_irreversible`.
        tell: told the undo of each migration, after the last receiver.

    Attributes:
        held_back: the contract halves that are not run.
    """

    def __init__(
        self,
        call: Call,
        connection: BaseDatabaseWrapper,
        options: dict[str, Any],
        tell: "Callable[[Sequence[Choice]], None]",
    ) -> None:
        self._call = call
        self._connection = connection
        self._options = options
        self._tell = tell
        self._is_checked = False
        self._goes_back = False
        self.held_back: list[Queued] = []

    def check(self, sender: AppConfig, plan: Plan, using: str, **_kwargs: object) -> None:
        """Look at the plan; Django sends the signal once for each app.

        Raises:
            CommandError: with `returncode` 3.
        """
        if using != self._connection.alias:
            return
        if not self._is_checked:
            self._is_checked = True
            self._call.last = plan[-1][0] if plan else None
            self._refuse_turning_round(plan)
            if plan and not self._options["fake"]:
                self._place(plan)
            if not self._options["fake"] and not self._call.permanent.before.is_empty:
                with self._call.permanent.receivers.aside():
                    self._refuse_irreversible(plan)
        if plan and sender is _last():
            from smooth_migrations.undo.choice import choose  # noqa: PLC0415 - most calls find nothing to do

            before = self._call.permanent.before
            choices = choose(plan, self._connection, is_empty=before.is_empty, compensated=self._call.is_compensated)
            self._tell(choices)

    def _place(self, plan: Plan) -> None:
        """Let what breaks the release still running run in halves, and the rest beside what is held back."""
        from smooth_migrations.contract_queue import QueueUnreadable  # noqa: PLC0415 - as below
        from smooth_migrations.halves import install  # noqa: PLC0415 - as below
        from smooth_migrations.locks.foreseen import foreseen  # noqa: PLC0415 - as below
        from smooth_migrations.operations import CannotSplit  # noqa: PLC0415 - as below
        from smooth_migrations.splitting import place_backwards, place_forwards  # noqa: PLC0415 - as below

        call, migrations = self._call, [migration for migration, _backwards in plan]
        executor = MigrationExecutor(self._connection)
        try:
            if plan[0][1]:
                placed = place_backwards(self._connection, migrations, executor)
            else:
                placed = place_forwards(self._connection, migrations, expands=call.options.expands, executor=executor)
        except (CannotSplit, QueueUnreadable) as error:
            raise CommandError(f"Refused: {error.message} ({error.hint})", returncode=REFUSED) from error
        install(placed, call.options.call_id)
        if self._connection.vendor == "postgresql" and not call.permanent.before.is_empty:
            call.locks.expect(foreseen(self._connection, plan, executor))
        self._goes_back = bool(placed) and plan[0][1]
        self.held_back = [item.queued(call.options.call_id) for item in placed if item.split and not plan[0][1]]

    def finish(self) -> None:
        """Forget the contract halves of what was taken back, when all of it was."""
        if self._goes_back:
            from smooth_migrations.contract_queue import purge  # noqa: PLC0415 - as above

            purge(self._connection)

    def _refuse_turning_round(self, plan: Plan) -> None:
        committed = self._call.committed
        if plan and committed and committed[0].backwards is not plan[0][1]:
            way = "backwards" if committed[0].backwards else "forwards"
            message = f"Refused: the call that was killed went {way}; resume it with its own arguments"
            raise CommandError(message, returncode=REFUSED)

    def _refuse_irreversible(self, plan: Plan) -> None:
        early = committed_early(plan, self._connection, compensated=self._call.is_compensated)
        if not early:
            return
        from smooth_migrations.losses import irreversible_steps  # noqa: PLC0415 - and loses nothing

        if self._options.get("rehearse"):
            names = ", ".join(str(migration) for migration in early)
            raise CommandError(f"Refused: these cannot be rehearsed: {names}", returncode=REFUSED)
        refuses = not self._options.get("allow_irreversible")
        if refuses:
            lines = [f"  {migration}: {what}" for migration, what in irreversible_steps(self._connection, plan, early)]
            if lines:
                message = "\n".join(["Refused: these could not be rolled back, and nothing was run:", *lines])
                hint = "--allow-irreversible runs them all the same"
                raise CommandError(message, returncode=REFUSED) from Irreversible(message, hint=hint)
        self._call.permanent.expect_back(self._fingerprint(), early, refuses=refuses)

    def _fingerprint(self) -> str:
        if not self._call.options.compares:
            return ""
        from smooth_migrations.fingerprint import take  # noqa: PLC0415 - what is held is not compared

        return take(self._connection).packed()


def _last() -> AppConfig | None:
    """Return the app that hears the signal last (`django.core.management.sql.emit_pre_migrate_signal`)."""
    return next((config for config in reversed([*apps.get_app_configs()]) if config.models_module is not None), None)

"""What happens when something deprecated is used: an error, or a warning that points at the caller's line."""

import sys
import warnings
from dataclasses import dataclass
from enum import Enum

from smooth_migrations.exceptions import FieldDeprecatedException, ModelDeprecatedException, SmoothMigrationsDeprecated
from smooth_migrations.helpers.callers import OWN, caller, is_on_behalf_of, place_of

__all__ = ["OnUse", "Subject"]


class OnUse(Enum):
    """What a use of something deprecated leads to."""

    RAISE = "raise"
    WARN = "warn"


@dataclass(frozen=True, slots=True)
class Subject:
    """A deprecated field or model.

    Args:
        on_use: what a use leads to.
        model: `app.Model`.
        field: the field's name; None where the whole model is deprecated.
    """

    on_use: OnUse
    model: str
    field: str | None = None

    @property
    def is_refused(self) -> bool:
        """Whether a use is an error."""
        return self.on_use is OnUse.RAISE

    def is_used(self, how: str, own: frozenset[str] = OWN) -> bool:
        """Raise or warn, and tell whether to go on; False where it is Django's own business, which is to see nothing.

        Args:
            how: what was done, as "was read".
            own: the modules and functions of Django whose own business it is.

        Raises:
            SmoothMigrationsDeprecated: it is refused.
        """
        if is_on_behalf_of(own):
            return not self.is_refused
        frame = caller()
        place = place_of(frame)
        name = f"{self.model}.{self.field}" if self.field else self.model
        message = f"{name} is deprecated, and {how}"
        if self.is_refused:
            raise self._error()(
                f"{message} ({place or 'the place is unknown'})",
                model=self.model,
                field=self.field,
                place=place,
                hint="it goes with the next release: take this use out of the code",
            )
        at = frame or sys._getframe(1)  # noqa: SLF001 - CPython's, as `warnings` uses it
        registry = at.f_globals.setdefault("__warningregistry__", {})
        module = at.f_globals.get("__name__")
        warnings.warn_explicit(
            message, DeprecationWarning, at.f_code.co_filename, at.f_lineno, module=module, registry=registry
        )
        return True

    def _error(self) -> type[SmoothMigrationsDeprecated]:
        return FieldDeprecatedException if self.field else ModelDeprecatedException

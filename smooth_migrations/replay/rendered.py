"""Historical models that are given to code on one database after the other, each time as if they had just been made.

What Django makes for each run of `migrate` takes half a second in a large project. What code leaves on it, such as the
ids of content types that a manager remembers, is of one database.
"""

from collections.abc import Iterable, Iterator
from copy import copy
from typing import Any, Final

from django.apps.registry import Apps
from django.db.migrations.state import ModelState
from django.db.models import Model

__all__ = ["Rendered"]

_CHANGING: Final = (dict, list, set)
_OF_MANAGERS: Final = frozenset({"base_manager", "default_manager", "managers", "managers_map"})


class Rendered:
    """Historical models, and what they are like now.

    Args:
        apps: the models' registry; nothing but Django has used them yet.
    """

    def __init__(self, apps: Apps) -> None:
        self._apps = apps
        self._models = {label: dict(models) for label, models in apps.all_models.items()}
        self._configs = dict(apps.app_configs)
        self._seen = [(model, dict(vars(model)), _kept(vars(model._meta))) for model in self.models()]  # noqa: SLF001
        parts = (part for model in self.models() for part in model._meta.get_fields(include_hidden=True))  # noqa: SLF001
        # The registry too; of what is between two models either has a part of its own.
        self._noted = [(part, dict(vars(part))) for part in (apps, *parts)]

    def as_new(self) -> Apps:
        """Take back what was done to them, give each a manager of its own that remembers nothing, and return them."""
        for part, there in self._noted:
            own = vars(part)
            own.clear()
            own.update(there)
        _put_back(self._apps.app_configs, self._configs)
        _put_back(self._apps.all_models, {label: self._apps.all_models[label] for label in self._models})
        for label, models in self._models.items():
            _put_back(self._apps.all_models[label], models)
        lookup: Any = self._apps.get_models
        lookup.cache_clear()
        for model, attributes, options in self._seen:
            _give_managers(model, options["local_managers"])
            # Its managers are there now; what was there beside is as it was.
            new = {name: vars(model)[name] for name in _managers(model) if name in vars(model)}
            _restore(model, attributes | new)
            own = vars(model._meta)  # noqa: SLF001 - Django's public name for it
            managers = own["local_managers"]
            own.clear()
            own.update({name: value for name, value in _kept(options).items() if name not in _OF_MANAGERS})
            own["local_managers"] = managers
        return self._apps

    def models(self) -> Iterator[type[Model]]:
        """Yield each of them."""
        for models in self._models.values():
            yield from models.values()


def _kept(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return attributes by themselves: what is put into a list that is one of them is put into no other."""
    return {name: copy(value) if type(value) in _CHANGING else value for name, value in attributes.items()}


def _put_back(now: dict[Any, Any], there: dict[Any, Any]) -> None:
    if now != there:
        now.clear()
        now.update(there)


def _managers(model: type[Model]) -> tuple[str, ...]:
    return tuple(manager.name for manager in model._meta.local_managers)  # noqa: SLF001 - Django's public name for it


def _give_managers(model: type[Model], managers: Iterable[Any]) -> None:
    """Give a model such managers as it had, as ModelState.render makes them."""
    meta: Any = model._meta  # noqa: SLF001 - Django's public name for it
    there = {manager.name: manager for manager in managers}
    state = ModelState(meta.app_label, meta.object_name, [], managers=[*there.items()])
    meta.local_managers.clear()
    for name, manager in state.construct_managers():
        manager.auto_created = there[name].auto_created
        manager.contribute_to_class(model, name)


def _restore(model: type[Model], attributes: dict[str, Any]) -> None:
    for name, value in [*vars(model).items()]:
        if name not in attributes:
            delattr(model, name)
        elif attributes[name] is not value:
            setattr(model, name, attributes[name])
    for name in attributes.keys() - vars(model).keys():
        setattr(model, name, attributes[name])

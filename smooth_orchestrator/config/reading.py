"""From a file to the shape of a plan, or to every mistake in it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from smooth_orchestrator.config.crosschecks import cross_mistakes
from smooth_orchestrator.config.mistakes import shape_mistakes
from smooth_orchestrator.config.tables import PlanFile
from smooth_orchestrator.config.values import Surroundings
from smooth_orchestrator.documents import read_document
from smooth_orchestrator.errors import PlanInvalid
from smooth_orchestrator.places import Found, in_file_order

__all__ = ["load", "understand"]


def load(path: Path, environ: Mapping[str, str]) -> PlanFile:
    """Read a plan and check all that can be checked without Django.

    Args:
        path: of the plan file.
        environ: where `${NAME}` is looked up.

    Raises:
        PlanInvalid: with every mistake, in the order of the file.
    """
    return understand(read_document(path), path, environ)


def understand(document: dict[str, Any], path: Path, environ: Mapping[str, str]) -> PlanFile:
    """Return the plan that a document is, as `load` does.

    Args:
        document: what the file holds.
        path: of the plan file.
        environ: where `${NAME}` is looked up.

    Raises:
        PlanInvalid: with every mistake, in the order of the file.
    """
    surroundings = Surroundings(path.parent.resolve(), environ)
    found: list[Found] = []
    plan = None
    try:
        plan = PlanFile.model_validate(document, context=surroundings)
    except ValidationError as error:
        found.extend(shape_mistakes(error))
    found.extend(cross_mistakes(document, surroundings.directory, environ))
    # Raised out here, so that no exception with a plan's values inside hangs on to it.
    if plan is None or found:
        raise PlanInvalid(item.mistake() for item in in_file_order(found, document))
    return plan

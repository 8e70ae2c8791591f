"""Names on a server that tell one run's work from another's, however long the parts are that they are made of. Pure."""

import hashlib
from typing import Final

__all__ = ["session_name", "session_prefixes", "shortened"]

# The server cuts the name of a session off after 63 bytes, and writes anything but printable ASCII in a way of its own
# (PostgreSQL manual, application_name).
_LONGEST: Final = 63
# So many bytes are left for an alias.
_LONGEST_RUN: Final = 38
_DIGITS: Final = 16


def shortened(text: str, longest: int) -> str:
    """Return printable ASCII of at most so many bytes, at least 17, that stands for this text alone.

    It holds a `~`, and so is no run's id.
    """
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:_DIGITS]
    head = "".join(letter for letter in text if " " <= letter <= "}")
    return f"{head[: longest - _DIGITS - 1]}~{digest}"


def session_name(run_id: str, alias: str) -> str:
    """Return what the sessions of a run, or of a call, are called in a database: `smooth:<run>:<alias>` where it fits.

    Args:
        run_id: the run.
        alias: the database's, in its project.
    """
    name = f"smooth:{run_id}:{alias}"
    if len(name) <= _LONGEST and name.isascii() and name.isprintable():
        return name
    beginning = _short_beginning(run_id)
    room = _LONGEST - len(beginning)
    is_kept = len(alias) <= room and alias.isascii() and alias.isprintable()
    return beginning + (alias if is_kept else shortened(alias, room))


def session_prefixes(run_id: str) -> tuple[str, str]:
    """Return what the names of a run's sessions begin with, in any database: one or the other, and nobody else's."""
    return f"smooth:{run_id}:", _short_beginning(run_id)


def _short_beginning(run_id: str) -> str:
    return f"smooth:{run_id if len(run_id) <= _LONGEST_RUN else shortened(run_id, _LONGEST_RUN)}:"

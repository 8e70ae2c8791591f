"""SQLSTATEs in words."""

from functools import cache

__all__ = ["in_words"]


def in_words(sqlstate: str) -> str:
    """Return a SQLSTATE with the name of its condition, `23505 unique violation`; alone where it has none."""
    name = _conditions().get(sqlstate)
    return f"{sqlstate} {name}" if name else sqlstate


@cache
def _conditions() -> dict[str, str]:
    """Return PostgreSQL's names (PostgreSQL manual, appendix A), as asyncpg's exceptions are called by them."""
    from asyncpg import exceptions  # noqa: PLC0415 - for failures alone; a deploy has it imported anyway

    kinds = {kind for kind in vars(exceptions).values() if isinstance(kind, type) and vars(kind).get("sqlstate")}
    return {vars(kind)["sqlstate"]: _words(kind.__name__.removesuffix("Error")) for kind in kinds}


def _words(name: str) -> str:
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name).strip()

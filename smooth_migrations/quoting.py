"""Names of other people's things, as a statement can hold them."""

__all__ = ["backticked", "double_quoted"]


def backticked(name: str) -> str:
    """Quote a name for MariaDB and MySQL, whatever is in it."""
    return "`{}`".format(name.replace("`", "``"))


def double_quoted(name: str) -> str:
    """Quote a name for PostgreSQL and SQLite, whatever is in it."""
    return '"{}"'.format(name.replace('"', '""'))

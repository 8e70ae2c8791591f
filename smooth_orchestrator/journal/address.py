"""The address of a journal on a server, as it may be shown. Pure but for the environment's password."""

import os
from urllib.parse import parse_qsl, unquote

from smooth_orchestrator.secrets import Masker

__all__ = ["shown"]


def shown(url: str) -> tuple[str, Masker]:
    """Return the address without a password, and a masker of the passwords that errors could repeat."""
    scheme, _, rest = url.partition("://")
    # By the last @ of all, and not as the standard says: a password may have been written unquoted.
    user_info, at, address = rest.rpartition("@")
    user, _, password = user_info.partition(":")
    hosts, _, query = address.partition("?")
    masker = Masker()
    options = dict(parse_qsl(query))
    for secret in (password, unquote(password), options.get("password", ""), os.environ.get("PGPASSWORD", "")):
        masker.add(secret)
    return f"{scheme}://{user}{at}{hosts}", masker

"""Whether anybody is at a URL, by the standard library alone: what speaks to a server properly takes long to import."""

import ssl
from http import HTTPStatus
from http.client import HTTPException
from typing import Final
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, HTTPSHandler, Request, build_opener

__all__ = ["ask"]

# What a proxy says in the place of one that is away.
_AWAY: Final = {HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT}


class _Stay(HTTPRedirectHandler):
    """Goes nowhere else."""

    def redirect_request(self, *_: object) -> None:
        """Take a redirection for the answer that it is."""


def ask(url: str, timeout_s: float) -> None:
    """Return once somebody answers there, whatever the answer is; by a proxy where the environment names one.

    Nothing that is secret is sent, so whose certificate it is does not matter. Of a URL of another kind than HTTP's,
    nobody can tell, and it is taken for an answer.

    Args:
        url: without a scheme it is HTTP's. A user and a password in it are left out.
        timeout_s: for each step.

    Raises:
        OSError: nobody is there.
    """
    scheme, _, rest = url.rpartition("://")
    if scheme not in ("", "http", "https"):
        return
    try:
        asked = Request(f"{scheme or 'http'}://{rest.rpartition('@')[2]}")  # noqa: S310 - HTTP's alone, see above
        with build_opener(_Stay, HTTPSHandler(context=_anybody())).open(asked, timeout=timeout_s):
            return
    except HTTPError as answer:
        with answer:
            if answer.code in _AWAY:
                raise
    except (HTTPException, ValueError, ConnectionResetError):
        # What gRPC is to who knows HTTP/1.1 alone; it may hang up, too. Or no URL: who uses it finds that out as fast.
        return
    except URLError as error:
        # A certificate of ours may be wanted.
        if not isinstance(error.reason, ssl.SSLError):
            raise
    except ssl.SSLError:
        return


def _anybody() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context

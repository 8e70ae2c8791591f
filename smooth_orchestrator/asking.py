"""Whether anybody is at a URL, by the standard library alone: what speaks to a server properly takes long to import."""

import ssl
from http.client import HTTPException
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, HTTPSHandler, Request, build_opener

__all__ = ["is_there"]


class _Stay(HTTPRedirectHandler):
    """Goes nowhere else."""

    def redirect_request(self, *_: object) -> None:
        """Take a redirection for the answer that it is."""


def is_there(url: str, timeout_s: float) -> bool:
    """Return whether somebody answers there, whatever the answer is; by a proxy where the environment names one.

    Nothing that is secret is sent, so whose certificate it is does not matter. Of a URL of another kind than HTTP's,
    nobody can tell, and it is taken for an answer.

    Args:
        url: without a scheme it is HTTP's. A user and a password in it are left out.
        timeout_s: for each step.
    """
    scheme, _, rest = url.rpartition("://")
    if scheme not in ("", "http", "https"):
        return True
    try:
        asked = Request(f"{scheme or 'http'}://{rest.rpartition('@')[2]}")  # noqa: S310 - HTTP's alone, see above
        with build_opener(_Stay, HTTPSHandler(context=_anybody())).open(asked, timeout=timeout_s):
            return True
    except (HTTPError, HTTPException):
        # The latter is what gRPC is to who knows HTTP/1.1 alone.
        return True
    except ValueError:
        # No URL. Whoever uses it finds that out as fast.
        return True
    except URLError as error:
        # A certificate of ours may be wanted.
        return isinstance(error.reason, ssl.SSLError)
    except OSError as error:
        return isinstance(error, ssl.SSLError)


def _anybody() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context

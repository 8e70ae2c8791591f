"""Keep passwords out of everything a user, a pipeline or a log shipper can read."""

import html
import json
import re
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from math import isfinite
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, quote, quote_plus, unquote, urlsplit

if TYPE_CHECKING:
    from smooth_orchestrator.config import PlanFile

__all__ = ["MASK", "PLAIN_KEYS", "Masker", "of_environment", "of_plan", "parts", "passwords_of_url"]

MASK: Final = "***"

# A password such as "postgres" or "shop" must not blot out a vendor or a database's name: these keys hold words of the
# plan, of the migration files or of this program, in none of which a secret can stand.
PLAIN_KEYS: Final = frozenset(
    {
        *("timestamp", "level", "event", "run_id", "deploy", "command", "phase", "database", "project", "alias"),
        *(
            "app",
            "migration",
            "direction",
            "tier",
            "outcome",
            "decision",
            "scope",
            "vendor",
            "type",
            "code",
            "sqlstate",
        ),
        *(
            "applied",
            "unapplied",
            "databases",
            "place",
            "started_at",
            "trace_id",
            "span_id",
            "logger",
            "stream",
            "signal",
            "whose",
        ),
    }
)

# A shorter secret would mask syllables of ordinary words and hide nothing.
_SHORTEST: Final = 3

# Characters that RFC 3986 allows unquoted in user information, and what other writers of URLs leave alone.
_UNQUOTED: Final = ("", "/", "!$&'()*+,;=", "!$&'()*+,;=:/?@")

_URL_PASSWORD: Final = re.compile(r"""(://[^\s:/@'"<>]{0,256}:)[^\s'"<>]{1,256}@""")

_KEY: Final = r"(?:password|passwd|passphrase|secret_?key|secret)"

_KEYED_PASSWORD: Final = re.compile(
    rf"""
    (?P<key> {_KEY} (?:\\*["'])? [ \t]* [=:] [ \t]* )
    (?:
        [\w.(]* " (?:\\.|[^"\\])* "         # also SecretStr("…") and b"…"
      | [\w.(]* ' (?:\\.|[^'\\])* '
      | (?P<quote> \\+["'] ) .*? (?P=quote)  # a string within a string
      | (?!\*\*\*) ["']? [^\s,;&"'\\]+       # bare, or cut off before its closing quote; not yet masked
    )
    """,
    re.IGNORECASE | re.VERBOSE,
)

# As in ALTER ROLE … PASSWORD '…', of which an error may show the beginning alone.
_SQL_PASSWORD: Final = re.compile(r"(\bpassword[ \t]+e?)'(?:''|[^'\n])+'?", re.IGNORECASE)

_OWN_KEY: Final = re.compile(r"[a-z_]{1,32}")

_ENDS_IN_KEY: Final = re.compile(f"{_KEY}$", re.IGNORECASE)

# Not PWD by itself, which is the working directory.
_NAMES_SECRET: Final = re.compile(
    f"(?:{_KEY}|pass|_pwd|token|credentials?|(?:api|access|account|private|signing|encryption)_?key)$", re.IGNORECASE
)


class Masker:
    """Replace secrets by `***` in text and in nested values.

    Besides the secrets that were added, in every spelling in which they are likely to appear, whatever stands where a
    password stands (`scheme://user:…@`, `password=…`, `'PASSWORD': '…'`, `PASSWORD '…'`) is masked without having been
    added.
    """

    def __init__(self) -> None:
        self._spellings: tuple[str, ...] = ()

    def add(self, secret: str) -> None:
        """Mask this secret from now on; one shorter than three characters is ignored."""
        if len(secret) >= _SHORTEST:
            # Longest first: a secret that begins another must not leave the other's tail behind.
            self._spellings = tuple(sorted({*self._spellings, *_spellings(secret)}, key=len, reverse=True))

    def text(self, text: str) -> str:
        """Return the text with every secret masked."""
        for spelling in self._spellings:
            if spelling in text:
                text = text.replace(spelling, MASK)
        text = _URL_PASSWORD.sub(rf"\1{MASK}@", text)
        text = _SQL_PASSWORD.sub(rf"\g<1>{MASK}", text)
        return _KEYED_PASSWORD.sub(rf"\g<key>{MASK}", text)

    def mask(self, value: object) -> Any:  # noqa: ANN401 - a JSON value of the argument's own shape
        """Return the value as plain JSON values with every secret masked.

        Mappings become dicts, other collections lists, and whatever JSON does not know its masked `str`. A value whose
        key says that it is a password is masked whole; strings under `PLAIN_KEYS` are left as they are.
        """
        if value is None or isinstance(value, int) or (isinstance(value, float) and isfinite(value)):
            return value
        if isinstance(value, Mapping):
            return {self._key(str(key)): self._item(str(key), item) for key, item in value.items()}
        if isinstance(value, list | tuple | AbstractSet):
            return [self.mask(item) for item in value]
        return self.text(str(value))

    def _key(self, key: str) -> str:
        # The keys of our own documents are public; a secret that equals one must not take it out of them.
        return key if _OWN_KEY.fullmatch(key) else self.text(key)

    def _item(self, key: str, value: object) -> Any:  # noqa: ANN401 - as `mask`
        if key in PLAIN_KEYS:
            if isinstance(value, str):
                return str(value)
            if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
                return [str(item) for item in value]
        if isinstance(value, str) and value and _ENDS_IN_KEY.search(key):
            return MASK
        return self.mask(value)


def parts(secret: str) -> Iterator[str]:
    """Yield a secret and the passwords within it, where it is a URL or a JSON document that holds some.

    A project may read all of its databases from one variable, and show a part of it.
    """
    yield secret
    yield from passwords_of_url(secret)
    if secret.lstrip().startswith(("{", "[")):
        try:
            document = json.loads(secret)
        except ValueError:
            return
        yield from _passwords(document)


def of_environment(environment: Mapping[str, str]) -> Iterator[str]:
    """Yield what a process's environment holds that nobody may be shown, by the names of its variables and in URLs.

    Gates and workers inherit it, and may print any of it.
    """
    for name, value in environment.items():
        if _NAMES_SECRET.search(name):
            yield value
        if "://" in value:
            yield from passwords_of_url(value)


def of_plan(file: "PlanFile", environment: Mapping[str, str]) -> Iterator[str]:
    """Yield what a plan, and the environment in which it is carried out, hold that nobody may be shown."""
    for project in file.projects.values():
        for value in project.env.values():
            yield from parts(value.get_secret_value())
    yield from of_environment(environment)
    for url in (file.deploy.journal, file.fleet.queue_url):
        if url is not None:
            yield from passwords_of_url(url.get_secret_value())


def passwords_of_url(url: str) -> Iterator[str]:
    """Yield the passwords of a URL: in its user information and among its parameters."""
    try:
        split = urlsplit(url)
    except ValueError:
        return
    if split.scheme:
        yield unquote(split.password or "")
        yield from parse_qs(split.query).get("password", ())


def _passwords(document: object) -> Iterator[str]:
    if isinstance(document, Mapping):
        for key, value in document.items():
            if isinstance(value, str) and _ENDS_IN_KEY.search(str(key)):
                yield value
            yield from _passwords(value)
    elif isinstance(document, list):
        for value in document:
            yield from _passwords(value)
    elif isinstance(document, str):
        yield from passwords_of_url(document)


def _spellings(secret: str) -> set[str]:
    """Return the ways in which a secret is written in URLs, connection strings, SQL, shells, HTML, reprs and JSON."""
    slashed = secret.replace("\\", "\\\\")
    quoted = {secret, quote_plus(secret, errors="replace"), slashed.replace("'", "\\'")}
    # Literals of SQL, of which an error of PostgreSQL shows the line; with doubled backslashes in an E'…'.
    quoted |= {text.replace("'", "''") for text in (secret, slashed)}
    quoted |= {secret.replace("'", "'\"'\"'"), secret.replace("'", "'\\''"), html.escape(secret)}
    quoted |= {repr(secret.encode(errors="replace"))[2:-1]}
    quoted |= {quote(secret, safe=safe, errors="replace") for safe in _UNQUOTED}
    quoted |= {re.sub("%[0-9A-F]{2}", lambda code: code[0].lower(), text) for text in quoted}
    escaped = {text for spelling in quoted for text in (spelling, *_escapes(spelling))}
    return escaped | {text for spelling in escaped for text in _escapes(spelling)}


def _escapes(text: str) -> tuple[str, ...]:
    return (repr(text)[1:-1], json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1], ascii(text)[1:-1])

import html
import json
import re
import shlex
import tempfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir

from smooth_orchestrator.secrets import MASK, Masker, of_environment, parts

# The checkout stays as clean as it was: what hypothesis remembers between runs is of no use here.
set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "smooth-hypothesis")

# Long enough and odd enough not to be a part of the words around it.
SECRETS = st.text(st.characters(exclude_categories=["Cs"]), min_size=3, max_size=30).map(lambda text: f"Zq{text}qZ")


def _masker(*secrets: str) -> Masker:
    masker = Masker()
    for secret in secrets:
        masker.add(secret)
    return masker


WRITERS: dict[str, Callable[[str], str]] = {
    "bare": lambda secret: secret,
    "quote": quote,
    "quote everything": lambda secret: quote(secret, safe=""),
    "quote_plus": quote_plus,
    "quote, lower case": lambda secret: re.sub("%..", lambda code: code[0].lower(), quote(secret, safe="")),
    "repr": repr,
    "ascii": ascii,
    "json": json.dumps,
    "json, unicode": lambda secret: json.dumps(secret, ensure_ascii=False),
    "repr of a dict": lambda secret: repr({"value": secret}),
    "json of a repr": lambda secret: json.dumps(repr({"value": secret})),
    "repr of a quoted url": lambda secret: repr(f"scheme:{quote(secret, safe='')}"),
    "bytes": lambda secret: repr(secret.encode()),
    "sql": lambda secret: "'{}'".format(secret.replace("'", "''")),
    "sql, escaped": lambda secret: "E'{}'".format(secret.replace("\\", "\\\\").replace("'", "''")),
    "json of sql": lambda secret: json.dumps("'{}'".format(secret.replace("'", "''"))),
    "shell": shlex.quote,
    "html": html.escape,
    "libpq": lambda secret: "'{}'".format(secret.replace("\\", "\\\\").replace("'", "\\'")),
}


@pytest.mark.parametrize("writer", WRITERS)
@settings(deadline=None, database=None)  # the machine may be busy
@given(secret=SECRETS)
def test_an_added_secret_is_masked_however_it_is_written(writer: str, secret: str) -> None:
    written = WRITERS[writer](secret)

    masked = _masker(secret).text(f"before {written} after")

    assert written.strip("'\"") not in masked
    assert "Zq" not in masked
    assert "qZ" not in masked
    assert masked.startswith("before ")
    assert masked.endswith(" after")


@settings(deadline=None, database=None)  # the machine may be busy
@given(secret=SECRETS, values=st.recursive(st.text() | st.integers() | st.none(), st.lists))
def test_no_added_secret_survives_anywhere_in_a_value(secret: str, values: object) -> None:
    value = {"list": [values, secret, {secret: (secret, {"deep": f"x{secret}x"})}], "error": ValueError(secret)}

    assert secret not in str(_masker(secret).mask(value))


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("postgresql://user:pa55@host:5432/db", f"postgresql://user:{MASK}@host:5432/db"),
        ("redis://:pa55@host", f"redis://:{MASK}@host"),
        ("postgres://u:p/a@s#s@host/db?x=1", f"postgres://u:{MASK}@host/db?x=1"),
        ("host=h password=pa55 user=u", f"host=h password={MASK} user=u"),
        ("password='pa\\'55 x' user=u", f"password={MASK} user=u"),
        ("{'PASSWORD': 'pa55', 'HOST': 'h'}", "{'PASSWORD': ***, 'HOST': 'h'}"),
        ('{"PASSWORD": "pa\\"55", "HOST": "h"}', '{"PASSWORD": ***, "HOST": "h"}'),
        ('"{\\"password\\": \\"pa55\\", \\"x\\": 1}"', '"{\\"password\\": ***, \\"x\\": 1}"'),
        ("LINE 1: ALTER ROLE a PASSWORD 'pa''55' VALID", f"LINE 1: ALTER ROLE a PASSWORD {MASK} VALID"),
        ("LINE 1: ...OLE a PASSWORD E'pa55 and so...\n  ^", f"LINE 1: ...OLE a PASSWORD E{MASK}\n  ^"),
        ("PGPASSWORD=pa55 psql", f"PGPASSWORD={MASK} psql"),
        ("password=SecretStr('pa55') next", f"password={MASK}) next"),
        ("SECRET_KEY = 'django-insecure-x'", f"SECRET_KEY = {MASK}"),
        ("PASSWORD': 'cut off", f"PASSWORD': {MASK} off"),
    ],
)
def test_what_stands_where_a_password_stands_is_masked_without_being_added(text: str, masked: str) -> None:
    assert Masker().text(text) == masked
    assert Masker().text(masked) == masked


@pytest.mark.parametrize(
    "text",
    [
        'password authentication failed for user "shop"',
        "see https://docs.example.org/a:b",
        "postgresql://user@host:5432/db",
        "ratio 3:4 at me@example.org",
        "column orders_order.secret_santa does not exist",
        "",
    ],
)
def test_other_text_is_left_alone(text: str) -> None:
    assert _masker("hunter2").text(text) == text


@pytest.mark.parametrize("secret", ["", "a", "ab"])
def test_a_secret_too_short_to_hide_is_ignored(secret: str) -> None:
    assert _masker(secret).text("abacus") == "abacus"


def test_a_secret_that_begins_another_leaves_no_tail() -> None:
    assert _masker("hunter", "hunter2").text("hunter2 hunter") == f"{MASK} {MASK}"


def test_a_value_under_a_passwords_key_is_masked_whole() -> None:
    masked = Masker().mask({"DB_PASSWORD": "a, b", "password": "", "passwords": "x", "secret": None})

    assert masked == {"DB_PASSWORD": MASK, "password": "", "passwords": "x", "secret": None}


def test_a_password_that_is_a_word_of_the_plan_does_not_blot_out_names() -> None:
    value = {
        "database": "postgres",
        "vendor": "postgresql",
        "applied": ["postgres.0001_initial"],
        "error": {"type": "postgresError", "message": "postgres says no"},
    }

    assert _masker("postgres").mask(value) == value | {
        "error": {"type": "postgresError", "message": f"{MASK} says no"},
    }


def test_a_masked_value_is_plain_json() -> None:
    value = {1: (1.5, True, None, float("nan"), float("inf")), "path": Path("/x"), "error": ValueError("no")}

    assert Masker().mask(value) == {"1": [1.5, True, None, "nan", "inf"], "path": "/x", "error": "no"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("plain", set()),
        ("postgresql://me:p%40ss@host/db?password=more", {"p@ss", "more"}),
        ('{"default": {"PASSWORD": "open-sesame", "NAME": "shop"}}', {"open-sesame"}),
        ('[{"url": "postgresql://me:hidden@host/db"}]', {"hidden"}),
        ('{"not": json', set()),
        ("http://[broken", set()),
    ],
)
def test_the_passwords_within_a_value_are_found(value: str, expected: set[str]) -> None:
    assert set(parts(value)) - {"", value} == expected


def test_a_secret_that_is_no_text_is_masked_too() -> None:
    # What an environment variable holds that is not UTF-8 (PEP 383).
    secret = b"Zq\xff\xfeqZ".decode(errors="surrogateescape")
    assert _masker(secret).text(f"a {secret} b {json.dumps(secret)}") == f'a {MASK} b "{MASK}"'


def test_the_secrets_of_an_environment_are_known_by_their_names_or_stand_in_urls() -> None:
    environment = {
        "PGPASSWORD": "one",
        "DEPLOY_TOKEN": "two",
        "django_secret_key": "three",
        "REGISTRY_API_KEY": "four",
        "CACHE_URL": "redis://:fi%76e@cache/0",
        "AWS_SECRET_ACCESS_KEY": "six",
        "MYSQL_PWD": "seven",
        "DB_PASS": "eight",
        "PWD": "/work",
        "OLDPWD": "/",
        "TOKEN_FILE": "/run/token",
        "EDITOR": "vi",
    }
    assert {*of_environment(environment)} - {""} == {
        *("one", "two", "three", "four", "five", "six", "seven", "eight"),
    }

"""What the fingerprint says of the things in a PostgreSQL database."""

import pytest

from tests.support.fingerprints import assert_there_and_back
from tests.support.histories import execute
from tests.support.postgres_database import PostgresDatabase

_SCHEMA = """
    CREATE TABLE parent (id bigint PRIMARY KEY, name varchar(20) NOT NULL);
    CREATE TABLE child (id integer PRIMARY KEY, parent_id bigint, total numeric(10,2) NOT NULL DEFAULT 0, note text);
    CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TABLE django_migrations (id integer, app text, name text, applied timestamptz);
"""

_CASES = [
    pytest.param(
        "CREATE TABLE fresh (id integer)",
        "DROP TABLE fresh",
        """
        + table public.fresh
        + table public.fresh column id: integer
        + table public.fresh columns: id
        + table public.fresh owner: postgres
        """,
        id="table",
    ),
    pytest.param(
        "CREATE SCHEMA extra",
        "DROP SCHEMA extra",
        """
        + schema extra
        + schema extra owner: postgres
        """,
        id="schema",
    ),
    pytest.param(
        "ALTER TABLE parent RENAME TO mother",
        "ALTER TABLE mother RENAME TO parent",
        """
        + table public.mother
        + table public.mother column id: bigint not null
        + table public.mother column name: character varying(20) not null
        + table public.mother columns: id, name
        + table public.mother constraint parent_pkey: PRIMARY KEY (id)
        + table public.mother index parent_pkey: unique btree (id)
        + table public.mother owner: postgres
        - table public.parent
        - table public.parent column id: bigint not null
        - table public.parent column name: character varying(20) not null
        - table public.parent columns: id, name
        - table public.parent constraint parent_pkey: PRIMARY KEY (id)
        - table public.parent index parent_pkey: unique btree (id)
        - table public.parent owner: postgres
        """,
        id="table-name",
    ),
    pytest.param(
        "CREATE SEQUENCE counter INCREMENT 2 OWNED BY child.id",
        "DROP SEQUENCE counter",
        """
        + sequence public.counter: bigint start 1 increment 2 from 1 to 9223372036854775807 cache 1
        + sequence public.counter owned by: table public.child column id
        + sequence public.counter owner: postgres
        """,
        id="sequence",
    ),
    pytest.param(
        "CREATE VIEW seen AS SELECT 1 AS one, 2 AS two",
        "DROP VIEW seen",
        """
        + view public.seen
        + view public.seen column one: integer
        + view public.seen column two: integer
        + view public.seen columns: one, two
        + view public.seen definition line 0001:  SELECT 1 AS one,
        + view public.seen definition line 0002:     2 AS two;
        + view public.seen owner: postgres
        """,
        id="view",
    ),
    pytest.param(
        "CREATE MATERIALIZED VIEW kept AS SELECT 1 AS one WITH NO DATA",
        "DROP MATERIALIZED VIEW kept",
        """
        + materialized view public.kept
        + materialized view public.kept column one: integer
        + materialized view public.kept columns: one
        + materialized view public.kept definition:  SELECT 1 AS one;
        + materialized view public.kept owner: postgres
        + materialized view public.kept populated: no
        """,
        id="materialized-view",
    ),
    pytest.param(
        "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO pg_monitor",
        "ALTER DEFAULT PRIVILEGES IN SCHEMA public REVOKE SELECT ON TABLES FROM pg_monitor",
        """
        + default grants of postgres on r in public: pg_monitor=r/postgres
        """,
        id="default-grant",
    ),
    pytest.param(
        "CREATE OR REPLACE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END'",
        "CREATE OR REPLACE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        """
        - function public.touch() line 0004: AS $function$BEGIN RETURN NEW; END$function$
        + function public.touch() line 0004: AS $function$BEGIN RETURN OLD; END$function$
        """,
        id="function",
    ),
    pytest.param(
        "CREATE AGGREGATE whole (integer) (sfunc = int4pl, stype = integer, initcond = '0')",
        "DROP AGGREGATE whole (integer)",
        """
        + aggregate public.whole(integer): int4pl of n into integer, initially 0, parallel u
        + aggregate public.whole(integer) owner: postgres
        """,
        id="aggregate",
    ),
    pytest.param(
        "CREATE TYPE mood AS ENUM ('fine', 'so')",
        "DROP TYPE mood",
        """
        + type public.mood: 'fine', 'so'
        + type public.mood owner: postgres
        """,
        id="enum",
    ),
    pytest.param(
        "CREATE DOMAIN positive AS integer NOT NULL DEFAULT 1 CONSTRAINT over CHECK (VALUE > 0)",
        "DROP DOMAIN positive",
        """
        + domain public.positive: integer not null default 1
        + domain public.positive constraint over: CHECK ((VALUE > 0))
        + domain public.positive owner: postgres
        """,
        id="domain",
    ),
    pytest.param(
        "CREATE TYPE pair AS (a integer, b text)",
        "DROP TYPE pair",
        """
        + type public.pair
        + type public.pair column a: integer
        + type public.pair column b: text
        + type public.pair columns: a, b
        + type public.pair owner: postgres
        """,
        id="composite-type",
    ),
    pytest.param(
        "CREATE TYPE span AS RANGE (subtype = float8)",
        "DROP TYPE span",
        """
        + type public.span: range of double precision with float8_ops in public.span_multirange
        + type public.span owner: postgres
        """,
        id="range",
    ),
    pytest.param(
        "CREATE COLLATION plain (provider = libc, locale = 'C')",
        "DROP COLLATION plain",
        """
        + collation public.plain: {"collctype": "C", "collcollate": "C", "collprovider": "c", "collisdeterministic": true}
        """,  # noqa: E501 - the server's own words
        id="collation-object",
    ),
    pytest.param(
        """
        CREATE TABLE log (day date) PARTITION BY RANGE (day);
        CREATE TABLE log_1 PARTITION OF log FOR VALUES FROM ('2020-01-01') TO ('2021-01-01')
        """,
        "DROP TABLE log",
        """
        + table public.log
        + table public.log column day: date
        + table public.log columns: day
        + table public.log owner: postgres
        + table public.log partitioned by: RANGE (day)
        + table public.log_1
        + table public.log_1 column day: date
        + table public.log_1 columns: day
        + table public.log_1 inherits: public.log
        + table public.log_1 owner: postgres
        + table public.log_1 partition: FOR VALUES FROM ('2020-01-01') TO ('2021-01-01')
        """,
        id="partitions",
    ),
    pytest.param(
        "CREATE TABLE heir () INHERITS (parent)",
        "DROP TABLE heir",
        """
        + table public.heir
        + table public.heir column id: bigint not null
        + table public.heir column name: character varying(20) not null
        + table public.heir columns: id, name
        + table public.heir inherits: public.parent
        + table public.heir owner: postgres
        """,
        id="inheritance",
    ),
    pytest.param(
        "CREATE EXTENSION hstore",
        "DROP EXTENSION hstore",
        """
        + extension hstore: version 1.8 in public
        + extension hstore comment: data type for storing sets of (key, value) pairs
        """,
        id="extension",
    ),
    pytest.param(
        "CREATE PUBLICATION news FOR TABLE child",
        "DROP PUBLICATION news",
        """
        + publication news: insert, update, delete, truncate
        + publication news of public.child
        + publication news owner: postgres
        """,
        id="publication",
    ),
    pytest.param(
        """
        CREATE FUNCTION seen() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
        CREATE EVENT TRIGGER watch ON ddl_command_end WHEN TAG IN ('DROP TABLE') EXECUTE FUNCTION seen()
        """,
        "DROP EVENT TRIGGER watch; DROP FUNCTION seen",
        """
        + event trigger watch: on ddl_command_end execute public.seen for DROP TABLE
        + event trigger watch owner: postgres
        + function public.seen() line 0001: CREATE OR REPLACE FUNCTION public.seen()
        + function public.seen() line 0002:  RETURNS event_trigger
        + function public.seen() line 0003:  LANGUAGE plpgsql
        + function public.seen() line 0004: AS $function$BEGIN END$function$
        + function public.seen() owner: postgres
        """,
        id="event-trigger",
    ),
    pytest.param(
        "CREATE STATISTICS pairs ON parent_id, note FROM child",
        "DROP STATISTICS pairs",
        """
        + statistics public.pairs: CREATE STATISTICS public.pairs ON parent_id, note FROM public.child
        """,
        id="statistics",
    ),
    pytest.param(
        "CREATE TEXT SEARCH DICTIONARY short (TEMPLATE = simple)",
        "DROP TEXT SEARCH DICTIONARY short",
        """
        + text search dictionary public.short
        """,
        id="text-search",
    ),
    pytest.param(
        "INSERT INTO django_migrations VALUES (1, 'shop', '0001_initial', now())",
        "DELETE FROM django_migrations",
        """
        + migration shop.0001_initial
        """,
        id="record",
    ),
]


@pytest.mark.parametrize(("change", "inverse", "expected"), _CASES)
def test_a_change_differs_in_just_that_and_its_inverse_in_nothing(
    pg_database: PostgresDatabase, change: str, inverse: str, expected: str
) -> None:
    execute(pg_database, _SCHEMA)
    assert_there_and_back(pg_database, change, inverse, expected)


def test_a_part_of_a_publication_counts(pg_database: PostgresDatabase) -> None:
    with pg_database.connect() as session:
        if session.info.server_version < 150000:
            pytest.skip("a publication has parts since PostgreSQL 15")
    execute(pg_database, _SCHEMA)
    assert_there_and_back(
        pg_database,
        "CREATE PUBLICATION news FOR TABLE child WHERE (id > 0)",
        "DROP PUBLICATION news",
        """
        + publication news: insert, update, delete, truncate
        + publication news of public.child: where (id > 0)
        + publication news owner: postgres
        """,
    )

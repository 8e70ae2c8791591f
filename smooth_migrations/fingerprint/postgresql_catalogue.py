"""The query of PostgreSQL's catalogues: a select for each kind of thing, in two columns, of what and what of it."""

import re
from typing import Final

from smooth_migrations.fingerprint.vendor import PREFIX

__all__ = ["catalogue_query"]

# What the selects below call the oid of a row of each catalogue.
_OIDS: Final = {
    "class": "c.oid",
    "type": "t.oid",
    "proc": "p.oid",
    "namespace": "s.oid",
    "foreign_server": "f.oid",
    "event_trigger": "e.oid",
    "collation": "c.oid",
    "ts_config": "c.oid",
}

_FRAME: Final = r"""
    brought AS MATERIALIZED (
        SELECT classid, objid FROM pg_depend
        WHERE deptype = 'e' OR deptype = 'i' AND classid IN ('pg_proc'::regclass, 'pg_cast'::regclass)
    ), spaces AS MATERIALIZED (
        SELECT oid, quote_ident(nspname) AS name FROM pg_namespace
        WHERE nspname NOT LIKE 'pg\_%' AND nspname <> 'information_schema'
    ), relations AS MATERIALIZED (
        SELECT c.*, format('%s %s.%I', CASE relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view'
                   WHEN 'S' THEN 'sequence' WHEN 'f' THEN 'foreign table' WHEN 'c' THEN 'type' ELSE 'table' END,
                   s.name, relname) AS subject
        FROM pg_class c JOIN spaces s ON s.oid = relnamespace
        WHERE relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'c') AND relname NOT LIKE '{prefix}%'
          AND {own_class}
    ), attributes AS MATERIALIZED (
        SELECT a.*, r.subject FROM pg_attribute a JOIN relations r ON r.oid = attrelid
        WHERE relkind <> 'S' AND attnum > 0 AND NOT attisdropped
    ), index_columns AS MATERIALIZED (
        SELECT indexrelid,
               string_agg(quote_ident(attname) || CASE WHEN opcdefault THEN '' ELSE ' ' || opcname END, ', '
                          ORDER BY place) AS names,
               bool_and(sorting = 0 AND coll = attcollation AND CASE
                   WHEN NOT opcdefault THEN opcnamespace = 'pg_catalog'::regnamespace
                   ELSE opcintype = atttypid OR opcintype = 'text'::regtype AND atttypid = 'varchar'::regtype
               END) AS is_plain
        FROM pg_index
        CROSS JOIN LATERAL unnest(indkey, indclass, indcollation, indoption)
            WITH ORDINALITY AS part (attnum, class, coll, sorting, place)
        JOIN attributes a ON attrelid = indrelid AND a.attnum = part.attnum
        JOIN pg_opclass o ON o.oid = class
        GROUP BY indexrelid
    ), types AS MATERIALIZED (
        SELECT t.*, format('%s %s.%I', CASE typtype WHEN 'd' THEN 'domain' ELSE 'type' END, s.name, typname) AS subject
        FROM pg_type t JOIN spaces s ON s.oid = typnamespace
        WHERE (typtype IN ('d', 'e', 'r') OR typtype = 'b' AND typcategory <> 'A'
               OR typtype = 'c' AND EXISTS (SELECT 1 FROM relations r WHERE r.oid = typrelid AND relkind = 'c'))
          AND {own_type}
    ), routines AS MATERIALIZED (
        SELECT p.*, format('%s %s.%I(%s)', CASE prokind WHEN 'p' THEN 'procedure' WHEN 'a' THEN 'aggregate'
                           ELSE 'function' END, s.name, proname, oidvectortypes(proargtypes)) AS subject
        FROM pg_proc p JOIN spaces s ON s.oid = pronamespace
        WHERE proname NOT LIKE '{prefix}%' AND {own_proc}
    ), owned AS (
        SELECT 'schema ' || s.name AS subject, nspowner AS owner, nspacl AS grants, 'n' AS kind
        FROM spaces s JOIN pg_namespace n ON n.oid = s.oid WHERE {own_namespace}
        UNION ALL
        SELECT subject, relowner, relacl, CASE relkind WHEN 'S' THEN 's' ELSE 'r' END
        FROM relations WHERE relkind <> 'c'
        UNION ALL
        SELECT subject, typowner, typacl, 'T' FROM types
        UNION ALL
        SELECT subject, proowner, proacl, 'f' FROM routines
        UNION ALL
        SELECT 'foreign server ' || quote_ident(srvname), srvowner, srvacl, 'S' FROM pg_foreign_server f
        WHERE {own_foreign_server}
        UNION ALL
        SELECT 'publication ' || quote_ident(pubname), pubowner, NULL, NULL FROM pg_publication
        UNION ALL
        SELECT 'event trigger ' || quote_ident(evtname), evtowner, NULL, NULL FROM pg_event_trigger e
        WHERE {own_event_trigger}
    )
"""

_RELATIONS: Final = """
    SELECT concat_ws(' ', r.subject, aspect), text
    FROM relations r
    LEFT JOIN (
        SELECT attrelid, string_agg(quote_ident(attname), ', ' ORDER BY attnum) AS names
        FROM attributes GROUP BY attrelid
    ) AS columns ON attrelid = r.oid
    CROSS JOIN LATERAL (VALUES
        ('columns', names),
        ('persistence', CASE relpersistence WHEN 'u' THEN 'unlogged' END),
        ('options', array_to_string(array(SELECT unnest(reloptions) ORDER BY 1), ', ')),
        ('toast options', (SELECT array_to_string(t.reloptions, ', ') FROM pg_class t WHERE t.oid = r.reltoastrelid)),
        ('tablespace', (SELECT spcname FROM pg_tablespace t WHERE t.oid = r.reltablespace)),
        ('access method', (SELECT amname FROM pg_am m WHERE m.oid = r.relam AND amname <> 'heap')),
        ('row type', CASE WHEN reloftype <> 0 THEN format_type(reloftype, NULL) END),
        ('partitioned by', CASE relkind WHEN 'p' THEN pg_get_partkeydef(r.oid) END),
        ('partition', CASE WHEN relispartition THEN pg_get_expr(relpartbound, r.oid) END),
        ('inherits', CASE WHEN relkind IN ('r', 'p', 'f') THEN (
            SELECT string_agg(inhparent::regclass::text, ', ' ORDER BY inhseqno) FROM pg_inherits WHERE inhrelid = r.oid
        ) END),
        ('row security', CASE WHEN relforcerowsecurity AND relrowsecurity THEN 'enabled, forced'
                         WHEN relrowsecurity THEN 'enabled' WHEN relforcerowsecurity THEN 'forced' END),
        ('replica identity', CASE WHEN relkind IN ('r', 'p') THEN
            CASE relreplident WHEN 'n' THEN 'nothing' WHEN 'f' THEN 'full' END END),
        ('populated', CASE WHEN relkind = 'm' AND NOT relispopulated THEN 'no' END),
        ('definition', CASE WHEN relkind IN ('v', 'm') THEN pg_get_viewdef(r.oid) END)
    ) AS aspects (aspect, text)
    WHERE text <> ''
    UNION ALL
    SELECT subject, NULL FROM relations WHERE relkind NOT IN ('S', 'c')
    UNION ALL
    SELECT format('%s column %I', subject, attname), concat_ws(' ', format_type(atttypid, atttypmod),
        CASE WHEN attcollation NOT IN (0, typcollation) THEN 'collate ' || attcollation::regcollation END,
        CASE WHEN attnotnull THEN 'not null' END,
        CASE attgenerated WHEN 's' THEN format('generated always as (%s) stored', pg_get_expr(adbin, adrelid))
                          WHEN 'v' THEN format('generated always as (%s) virtual', pg_get_expr(adbin, adrelid))
                          ELSE 'default ' || pg_get_expr(adbin, adrelid) END,
        CASE attidentity WHEN 'a' THEN 'generated always as identity'
                         WHEN 'd' THEN 'generated by default as identity' END,
        CASE WHEN attstorage <> typstorage THEN 'storage ' || CASE attstorage WHEN 'p' THEN 'plain'
            WHEN 'e' THEN 'external' WHEN 'm' THEN 'main' ELSE 'extended' END END,
        CASE attcompression WHEN 'p' THEN 'compression pglz' WHEN 'l' THEN 'compression lz4' END,
        'statistics ' || nullif(attstattarget, -1),
        -- Since November 2026 (15.20) the server keeps there too at which position of its log the column was made.
        'options ' || nullif(array_to_string(array(SELECT option FROM unnest(attoptions) AS option
                                                   WHERE NOT starts_with(option, 'pg_attver=')), ', '), ''),
        'options ' || array_to_string(attfdwoptions, ', '))
    FROM attributes JOIN pg_type t ON t.oid = atttypid
    LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
    UNION ALL
    SELECT format('%s column %I grants', subject, attname),
           array_to_string(array(SELECT unnest(attacl)::text ORDER BY 1), ', ')
    FROM attributes WHERE attacl <> '{}'
    UNION ALL
    SELECT subject, format('%s start %s increment %s from %s to %s cache %s%s', format_type(seqtypid, NULL), seqstart,
        seqincrement, seqmin, seqmax, seqcache, CASE WHEN seqcycle THEN ' cycle' END)
    FROM relations r JOIN pg_sequence ON seqrelid = r.oid
    UNION ALL
    SELECT r.subject || ' owned by', format('%s column %I', a.subject, attname)
    FROM relations r
    JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = r.oid AND d.deptype IN ('a', 'i')
    JOIN attributes a ON d.refclassid = 'pg_class'::regclass AND attrelid = d.refobjid AND attnum = d.refobjsubid
    WHERE r.relkind = 'S'
"""

# The names that PostgreSQL 18 gives to what was only ever a mark of a column are nobody's choice.
# The server takes its time to write an index down, so what is plain is put together here.
_ON_RELATIONS: Final = r"""
    SELECT format('%s constraint %I', subject, conname), pg_get_constraintdef(c.oid)
    FROM pg_constraint c
    JOIN (SELECT oid, 0 AS type, subject FROM relations UNION ALL SELECT 0, oid, subject FROM types) AS owners
      ON owners.oid = conrelid AND type = contypid
    WHERE contype <> 't'
      AND NOT (contype = 'n' AND (contypid <> 0 OR conname ~ '_not_null\d*$' AND convalidated AND NOT connoinherit))
    UNION ALL
    SELECT format('%s index %I', subject, i.relname), concat_ws(', ',
        concat(CASE WHEN indisunique THEN 'unique ' END, CASE WHEN kind.is_plain THEN format('%s (%s)', amname, names)
               ELSE substr(definition, strpos(definition, ' USING ') + 7) END),
        CASE WHEN NOT indimmediate THEN 'deferrable' END, CASE WHEN indisclustered THEN 'clustered' END,
        CASE WHEN indisreplident THEN 'replica identity' END, CASE WHEN NOT indisvalid THEN 'invalid' END,
        CASE WHEN NOT indisready THEN 'not ready' END, CASE WHEN NOT indislive THEN 'being dropped' END,
        (SELECT 'tablespace ' || spcname FROM pg_tablespace t WHERE t.oid = i.reltablespace),
        (SELECT 'part of ' || inhparent::regclass FROM pg_inherits h WHERE h.inhrelid = x.indexrelid))
    FROM pg_index x JOIN relations r ON r.oid = indrelid JOIN pg_class i ON i.oid = x.indexrelid
    JOIN pg_am ON pg_am.oid = i.relam
    LEFT JOIN index_columns k ON k.indexrelid = x.indexrelid
    CROSS JOIN LATERAL (
        SELECT coalesce(k.is_plain AND amname IN ('btree', 'hash') AND indnkeyatts = indnatts AND i.reloptions IS NULL
                        AND indexprs IS NULL AND indpred IS NULL {and_nulls_distinct}, FALSE)
    ) AS kind (is_plain)
    CROSS JOIN LATERAL (
        SELECT CASE WHEN NOT kind.is_plain THEN pg_get_indexdef(x.indexrelid) END
    ) AS written (definition)
    UNION ALL
    SELECT format('%s trigger %I', subject, tgname), concat(pg_get_triggerdef(t.oid), {tgenabled})
    FROM pg_trigger t JOIN relations r ON r.oid = tgrelid WHERE NOT tgisinternal
    UNION ALL
    SELECT DISTINCT format('%s constraint %I triggers', subject, conname), ltrim({tgenabled}, ' ,')
    FROM pg_trigger t JOIN relations r ON r.oid = tgrelid JOIN pg_constraint c ON c.oid = tgconstraint
    WHERE tgisinternal AND tgenabled <> 'O'
    UNION ALL
    SELECT format('%s rule %I', subject, rulename), concat(pg_get_ruledef(w.oid), {ev_enabled})
    FROM pg_rewrite w JOIN relations r ON r.oid = ev_class WHERE rulename <> '_RETURN'
    UNION ALL
    SELECT format('%s policy %I', subject, polname), concat_ws(' ',
        CASE WHEN polpermissive THEN 'permissive' ELSE 'restrictive' END,
        'for ' || CASE polcmd WHEN 'r' THEN 'select' WHEN 'a' THEN 'insert' WHEN 'w' THEN 'update'
                              WHEN 'd' THEN 'delete' ELSE 'all' END,
        'to ' || array_to_string(array(
            SELECT CASE role WHEN 0 THEN 'public' ELSE role::regrole::text END FROM unnest(polroles) AS role ORDER BY 1
        ), ', '),
        'using ' || pg_get_expr(polqual, polrelid), 'with check ' || pg_get_expr(polwithcheck, polrelid))
    FROM pg_policy JOIN relations r ON r.oid = polrelid
    UNION ALL
    SELECT format('statistics %s.%I', name, stxname), pg_get_statisticsobjdef(x.oid)
    FROM pg_statistic_ext x JOIN relations r ON r.oid = stxrelid JOIN spaces s ON s.oid = stxnamespace
"""

_TYPES_AND_ROUTINES: Final = """
    SELECT subject, CASE typtype
        WHEN 'e' THEN (SELECT string_agg(quote_literal(enumlabel), ', ' ORDER BY enumsortorder)
                       FROM pg_enum WHERE enumtypid = types.oid)
        WHEN 'd' THEN concat_ws(' ', format_type(typbasetype, typtypmod),
            CASE WHEN typcollation NOT IN (0, (SELECT b.typcollation FROM pg_type b WHERE b.oid = types.typbasetype))
                 THEN 'collate ' || typcollation::regcollation END,
            CASE WHEN typnotnull THEN 'not null' END, 'default ' || pg_get_expr(typdefaultbin, 0))
        WHEN 'r' THEN (SELECT concat_ws(' ', 'range of', format_type(rngsubtype, NULL), 'with', opcname,
                                        'in', rngmultitypid::regtype,
                                        'canonical ' || nullif(rngcanonical::text, '-'),
                                        'difference ' || nullif(rngsubdiff::text, '-'))
                       FROM pg_range JOIN pg_opclass o ON o.oid = rngsubopc WHERE rngtypid = types.oid)
        WHEN 'b' THEN format('base type of %s bytes, input %s', typlen, typinput)
    END FROM types
    UNION ALL
    SELECT subject, rtrim(pg_get_functiondef(oid), E'\\n') FROM routines WHERE prokind <> 'a'
    UNION ALL
    SELECT subject, concat_ws(', ', format('%s of %s into %s', aggtransfn, aggkind, format_type(aggtranstype, NULL)),
        'final ' || nullif(aggfinalfn::text, '-'), 'combined by ' || nullif(aggcombinefn::text, '-'),
        'moving ' || nullif(aggmtransfn::text, '-'), 'initially ' || agginitval, 'parallel ' || proparallel::text)
    FROM routines JOIN pg_aggregate ON aggfnoid = oid
"""

# Rare things are named alone: all that matters of them is whether they are there.
_REST: Final = """
    SELECT 'schema ' || s.name, NULL FROM spaces s WHERE {own_namespace}
    UNION ALL
    SELECT 'extension ' || quote_ident(extname), format('version %s in %I', extversion, nspname)
    FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace
    UNION ALL
    SELECT subject || ' owner', quote_ident(pg_get_userbyid(owner)) FROM owned
    UNION ALL
    SELECT subject || ' grants', coalesce(nullif(given, ''), 'none') FROM owned CROSS JOIN LATERAL (VALUES (
        array_to_string(array(SELECT unnest(grants)::text ORDER BY 1), ', '),
        array_to_string(array(SELECT unnest(acldefault(kind::"char", owner))::text ORDER BY 1), ', ')
    )) AS texts (given, usual) WHERE grants IS NOT NULL AND given <> usual
    UNION ALL
    SELECT format('default grants of %I on %s%s', pg_get_userbyid(defaclrole), defaclobjtype, ' in ' || s.name),
           array_to_string(array(SELECT unnest(defaclacl)::text ORDER BY 1), ', ')
    FROM pg_default_acl LEFT JOIN spaces s ON s.oid = defaclnamespace
    UNION ALL
    SELECT i.type || ' ' || i.identity || ' comment', description
    FROM pg_description d CROSS JOIN LATERAL pg_identify_object(classoid, objoid, objsubid) AS i
    WHERE (objoid >= 16384 OR classoid = 'pg_namespace'::regclass AND objoid IN (SELECT oid FROM spaces))
      AND NOT EXISTS (SELECT 1 FROM brought b WHERE b.classid = classoid AND b.objid = objoid)
      AND NOT (classoid = 'pg_class'::regclass
               AND EXISTS (SELECT 1 FROM pg_class c WHERE c.oid = objoid AND relname LIKE '{prefix}%'))
    UNION ALL
    SELECT i.type || ' ' || i.identity, NULL
    FROM (
        SELECT 'pg_operator'::regclass AS class, oid FROM pg_operator
        UNION ALL SELECT 'pg_opclass'::regclass, oid FROM pg_opclass
        UNION ALL SELECT 'pg_opfamily'::regclass, oid FROM pg_opfamily
        UNION ALL SELECT 'pg_cast'::regclass, oid FROM pg_cast
        UNION ALL SELECT 'pg_conversion'::regclass, oid FROM pg_conversion
        UNION ALL SELECT 'pg_am'::regclass, oid FROM pg_am
        UNION ALL SELECT 'pg_language'::regclass, oid FROM pg_language
        UNION ALL SELECT 'pg_ts_dict'::regclass, oid FROM pg_ts_dict
        UNION ALL SELECT 'pg_ts_parser'::regclass, oid FROM pg_ts_parser
        UNION ALL SELECT 'pg_ts_template'::regclass, oid FROM pg_ts_template
        UNION ALL SELECT 'pg_foreign_data_wrapper'::regclass, oid FROM pg_foreign_data_wrapper
    ) AS rare (class, objid) CROSS JOIN LATERAL pg_identify_object(class, objid, 0) AS i
    WHERE objid >= 16384 AND NOT EXISTS (SELECT 1 FROM brought b WHERE b.classid = class AND b.objid = rare.objid)
    UNION ALL
    SELECT format('collation %s.%I', s.name, collname),
           (jsonb_strip_nulls(to_jsonb(c))
            - array['oid', 'collname', 'collnamespace', 'collowner', 'collversion', 'collencoding'])::text
    FROM pg_collation c JOIN spaces s ON s.oid = collnamespace WHERE {own_collation}
    UNION ALL
    SELECT format('text search configuration %s.%I', s.name, cfgname), (
        SELECT string_agg(format('%s %s', alias, mapdict::regdictionary), ', ' ORDER BY maptokentype, mapseqno)
        FROM pg_ts_config_map JOIN LATERAL ts_token_type(cfgparser) ON tokid = maptokentype WHERE mapcfg = c.oid)
    FROM pg_ts_config c JOIN spaces s ON s.oid = cfgnamespace WHERE {own_ts_config}
    UNION ALL
    SELECT 'event trigger ' || quote_ident(evtname), concat_ws(' ', 'on', evtevent, 'execute', evtfoid::regproc,
        'for ' || array_to_string(evttags, ', '), ltrim({evtenabled}, ' ,'))
    FROM pg_event_trigger e WHERE {own_event_trigger}
    UNION ALL
    SELECT 'foreign server ' || quote_ident(srvname), concat_ws(' ', fdwname, srvtype, srvversion)
    FROM pg_foreign_server f JOIN pg_foreign_data_wrapper w ON w.oid = srvfdw WHERE {own_foreign_server}
    UNION ALL
    SELECT format('database setting%s', ' of role ' || nullif(setrole, 0)::regrole),
           array_to_string(array(SELECT unnest(setconfig) ORDER BY 1), ', ')
    FROM pg_db_role_setting WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
    UNION ALL
    SELECT 'publication ' || quote_ident(pubname), concat_ws(', ', CASE WHEN puballtables THEN 'all tables' END,
        CASE WHEN pubinsert THEN 'insert' END, CASE WHEN pubupdate THEN 'update' END,
        CASE WHEN pubdelete THEN 'delete' END, CASE WHEN pubtruncate THEN 'truncate' END,
        CASE WHEN pubviaroot THEN 'via root' END)
    FROM pg_publication
"""

_PUBLISHED: Final = """
    SELECT format('publication %I of %s', pubname, prrelid::regclass), concat_ws(' ', NULL{published_part})
    FROM pg_publication_rel r JOIN pg_publication p ON p.oid = prpubid
    WHERE EXISTS (SELECT 1 FROM relations WHERE oid = prrelid)
"""
_PUBLISHED_SCHEMAS: Final = """
    SELECT format('publication %I of schema %s', pubname, s.name), NULL
    FROM pg_publication_namespace JOIN pg_publication p ON p.oid = pnpubid JOIN spaces s ON s.oid = pnnspid
"""
_PUBLISHED_PART: Final = """,
    'columns ' || (SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum)
                   FROM pg_attribute WHERE attrelid = prrelid AND attnum = ANY (prattrs)),
    'where ' || pg_get_expr(prqual, prrelid)
"""

# From there on publications have parts, and unique indexes may take NULL for equal.
_PARTS_SINCE: Final = 15


def catalogue_query(version: int) -> str:
    """Return the query for a server.

    Args:
        version: the server's major one, 14 or higher.
    """
    selects = [_RELATIONS, _ON_RELATIONS, _TYPES_AND_ROUTINES, _REST, _PUBLISHED]
    has_parts = version >= _PARTS_SINCE
    if has_parts:
        selects.append(_PUBLISHED_SCHEMAS)
    values = {"prefix": PREFIX.replace("_", "\\_"), "published_part": _PUBLISHED_PART if has_parts else ""}
    values["and_nulls_distinct"] = "AND NOT indnullsnotdistinct" if has_parts else ""
    values |= {f"own_{catalogue}": _own(catalogue, oid) for catalogue, oid in _OIDS.items()}
    values |= {column: _state(column) for column in ("tgenabled", "ev_enabled", "evtenabled")}
    return re.sub(r"\{(\w+)\}", lambda mark: values[mark[1]], f"WITH {_FRAME} {' UNION ALL '.join(selects)}")


def _own(catalogue: str, oid: str) -> str:
    """Return the condition that it came by itself: not with an extension, whose version is told, or with a type."""
    brought = f"b.classid = 'pg_{catalogue}'::regclass AND b.objid = {oid}"
    return f"NOT EXISTS (SELECT 1 FROM brought b WHERE {brought})"  # noqa: S608 - constants of this module


def _state(column: str) -> str:
    """Return what is said of a trigger or rule that does not fire as usual."""
    return f"CASE {column} WHEN 'D' THEN ', disabled' WHEN 'R' THEN ', on replicas' WHEN 'A' THEN ', always' END"

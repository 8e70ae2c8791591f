"""Mistakes in projects, databases and phases, and in how they name each other."""

from tests.unit.bad_plans.base import (
    CANARY,
    HEAD,
    PRIMARY,
    PROJECT,
    SHARDS,
    bad,
    database,
    meaningless,
    phases,
    project,
)

PROJECTS = [
    bad(
        "project without its keys",
        HEAD + "[projects.shop]\n" + PRIMARY,
        "projects.shop.path: is required",
        "projects.shop.settings: is required",
    ),
    bad(
        "project directory missing",
        HEAD + PROJECT.replace('path = "shop"', 'path = "shpo"') + PRIMARY,
        'projects.shop.path: "shpo" does not exist',
    ),
    bad(
        "project path is a file",
        HEAD + PROJECT.replace('path = "shop"', 'path = "deploy.toml"') + PRIMARY,
        'projects.shop.path: "deploy.toml" is not a directory',
    ),
    bad(
        "settings as a file",
        HEAD + PROJECT.replace("shop.settings", "shop/settings.py") + PRIMARY,
        'projects.shop.settings: "shop/settings.py" must be the dotted name of a module, such as "shop.settings"',
    ),
    bad(
        "interpreter missing",
        project('python = ".venv/bin/python"'),
        'projects.shop.python: ".venv/bin/python" does not exist',
    ),
    bad(
        "interpreter not executable",
        project('python = "deploy.toml"'),
        'projects.shop.python: "deploy.toml" is not an executable file',
    ),
    bad(
        "environment",
        project('env = { A = "${SMOOTH_TEST_UNSET}", B = 5432, C = "${", "D=E" = "x", F = "${G-H}" }'),
        "projects.shop.env.A: not set in the environment: SMOOTH_TEST_UNSET",
        "projects.shop.env.B: must be a string, not an integer",
        "projects.shop.env.C: holds a ${ that is not ${NAME}",
        'projects.shop.env."D=E": "D=E" must be the name of an environment variable',
        "projects.shop.env.F: holds a ${ that is not ${NAME}",
    ),
    bad(
        "project name with a space",
        HEAD + PROJECT.replace("projects.shop", 'projects."my shop"') + PRIMARY.replace('"shop"', '"my shop"'),
        'projects."my shop": "my shop" must be at most 63 letters, digits, - and _',
    ),
]

DATABASES = [
    bad(
        "database of no project",
        HEAD + PROJECT + PRIMARY.replace('"shop"', '"shopp"'),
        'databases.primary.project: there is no project "shopp"',
    ),
    bad(
        "neither alias nor aliases",
        HEAD + PROJECT + '[databases.primary]\nproject = "shop"\n',
        "databases.primary: needs alias or aliases",
    ),
    bad("alias and aliases", database('aliases = "shard_*"'), "databases.primary: has both alias and aliases"),
    bad(
        "database keys of wrong types",
        database(
            'atomicity = true\nexpand_contract = 1\nlock_timeout = "soon"\nbind_default = "no"\nother_aliases = "deny"'
        ),
        "databases.primary.atomicity: must be a string, not a boolean",
        "databases.primary.expand_contract: must be true or false, not an integer",
        'databases.primary.lock_timeout: "soon" is not a duration',
        "databases.primary.bind_default: must be true or false, not a string",
        'databases.primary.other_aliases: "deny" is not one of "refuse", "allow"',
    ),
    bad(
        "one alias under two names",
        HEAD + PROJECT + PRIMARY + PRIMARY.replace("primary", "main"),
        'databases.main.alias: alias "default" of project "shop" is "primary" already',
    ),
    bad(
        "databases as an array",
        HEAD.replace("\n\n", '\ndatabases = ["primary"]\n\n') + PROJECT,
        "databases: must be a table, not an array",
    ),
]

PHASES = [
    bad(
        "phases as one table",
        HEAD + PROJECT + PRIMARY + "[phases]\n" + CANARY,
        "phases: must be an array of tables, not a table",
    ),
    bad("phase without its keys", phases(""), "phases[0].name: is required", "phases[0].databases: is required"),
    bad("phase without databases", phases('name = "all"\ndatabases = []'), "phases[0].databases: must not be empty"),
    bad(
        "phase keys of wrong types",
        phases('name = 1\ndatabases = "primary"\nparallel = "4"\ngate = "./bin/smoke-test"'),
        "phases[0].name: must be a string, not an integer",
        "phases[0].databases: must be an array, not a string",
        "phases[0].parallel: must be an integer, not a string",
        "phases[0].gate: must be an array, not a string",
    ),
    bad(
        "phase databases of a wrong type",
        phases('name = "all"\ndatabases = [1]'),
        "phases[0].databases[0]: must be a string, not an integer",
    ),
    bad("parallel of nothing", phases(CANARY + "\nparallel = 0"), "phases[0].parallel: must be at least 1"),
    bad(
        "gate of nothing",
        phases(CANARY + '\ngate = [""]'),
        "phases[0].gate[0]: must be a text without NUL characters, not empty",
    ),
    bad("misspelt key in a phase", phases(CANARY + "\nparalel = 2"), "phases[0].paralel: is not a key of this table"),
    bad(
        "phase name twice",
        phases(CANARY, 'name = "canary"\ndatabases = ["shards:*"]', databases=PRIMARY + SHARDS),
        'phases[1].name: "canary" is the name of phases[0] already',
    ),
    bad(
        "phase called like the decision about all",
        phases(CANARY.replace("canary", "deploy")).replace(HEAD, HEAD + 'commit = "phase"\n'),
        'phases[0].name: with commit = "phase" no phase can be called "deploy": so is a decision about all of them',
    ),
    bad(
        "phase with an unknown database",
        phases(CANARY.replace('["primary"]', '["primary", "primry"]')),
        'phases[0].databases[1]: no database matches "primry"',
    ),
    bad(
        "phase with a glob of nothing",
        phases(CANARY, 'name = "fleet"\ndatabases = ["shards:*"]'),
        'phases[1].databases[0]: no database matches "shards:*"',
    ),
    bad(
        "database in two phases",
        phases(CANARY, 'name = "again"\ndatabases = ["prim*"]'),
        'phases[1].databases[0]: "primary" is in phase "canary" already',
    ),
    bad(
        "database twice in a phase",
        phases(CANARY.replace('["primary"]', '["primary", "primary"]')),
        'phases[0].databases[1]: "primary" is listed twice',
    ),
    bad(
        "database in no phase",
        phases('name = "fleet"\ndatabases = ["shards:*"]', databases=PRIMARY + SHARDS),
        'databases.primary: "primary" is in no phase',
    ),
]

MANY = [
    bad(
        "many mistakes at once",
        """\
version = "1"
nmae = "shop"

[deploy]
name = "shop!"
commit = "phases"
lock_timeout = "2 s"

[projects.shop]
path = "nowhere"
setings = "shop.settings"

[databases.primary]
project = "shpo"
alias = "default"

[[phases]]
name = "canary"
databases = ["primry"]
parallel = "1"
""",
        "version: must be an integer, not a string",
        "nmae: is not a key of a plan",
        'deploy.name: "shop!" must be small letters, digits and -',
        'deploy.commit: "phases" is not one of "deploy", "phase"',
        'deploy.lock_timeout: "2 s" is not a duration',
        "projects.shop.settings: is required",
        'projects.shop.path: "nowhere" does not exist',
        "projects.shop.setings: is not a key of this table",
        'databases.primary: "primary" is in no phase',
        'databases.primary.project: there is no project "shpo"',
        'phases[0].databases[0]: no database matches "primry"',
        "phases[0].parallel: must be an integer, not a string",
    ),
]

MEANINGS = [
    meaningless(
        "no such alias",
        HEAD + PROJECT + PRIMARY.replace("default", "defalt"),
        'databases.primary.alias: project "shop" has no alias "defalt"',
    ),
    meaningless(
        "aliases of nothing",
        HEAD + PROJECT + SHARDS.replace("shard_*", "part_*"),
        'databases.shards.aliases: no alias of project "shop" matches "part_*"',
    ),
    meaningless(
        "aliases of nothing, in a phase",
        phases(
            CANARY, 'name = "fleet"\ndatabases = ["shards:*"]', databases=PRIMARY + SHARDS.replace("shard_*", "part_*")
        ),
        'databases.shards.aliases: no alias of project "shop" matches "part_*"',
        'phases[1].databases[0]: no database matches "shards:*"',
    ),
    meaningless(
        "one physical database under two aliases",
        HEAD + PROJECT + SHARDS.replace("shard_*", "reports*"),
        'databases.shards: "shards:reports_too" is the same physical database as "shards:reports"',
    ),
    meaningless(
        "one physical database by name and by glob",
        HEAD + PROJECT + PRIMARY + SHARDS.replace("shard_*", "defaul?"),
        'databases.shards: "shards:default" is the same physical database as "primary"',
    ),
    meaningless(
        "shards in no phase",
        phases(CANARY, databases=PRIMARY + SHARDS),
        'databases.shards: "shards:shard_1" and 1 more are in no phase',
    ),
    meaningless(
        "a shard in two phases",
        phases(
            CANARY.replace('"primary"', '"primary", "shards:*_1"'),
            'name = "fleet"\ndatabases = ["shards:*"]',
            databases=PRIMARY + SHARDS,
        ),
        'phases[1].databases[0]: "shards:shard_1" is in phase "canary" already',
    ),
    meaningless(
        "a table's name for its databases",
        phases(
            CANARY.replace('"primary"', '"primary", "shards"'),
            'name = "fleet"\ndatabases = ["shards:*"]',
            databases=PRIMARY + SHARDS,
        ),
        'phases[0].databases[1]: no database matches "shards"',
    ),
    meaningless(
        "several mistakes of meaning",
        phases(
            'name = "all"\ndatabases = ["shards:*"]', databases=PRIMARY.replace("default", "replica") + SHARDS
        ).replace('["shards:*"]', '["primary", "shards:shard_9"]'),
        'databases.primary.alias: project "shop" has no alias "replica"',
        'phases[0].databases[1]: no database matches "shards:shard_9"',
        'databases.shards: "shards:shard_1" and 1 more are in no phase',
    ),
]

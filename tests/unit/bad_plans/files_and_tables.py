"""Files that are no plan, and mistakes in the tables that every plan has once."""

from pathlib import Path

from tests.unit.bad_plans.base import (
    HEAD,
    PRIMARY,
    PROJECT,
    bad,
    deploy,
)

FILES = [
    bad("missing file", lambda plan: plan, "{plan}: does not exist"),
    bad("directory", Path.mkdir, "{plan}: is a directory, not a plan"),
    # What even root cannot read: a link to itself.
    bad(
        "unreadable file",
        lambda plan: plan.symlink_to(plan),
        "{plan}: cannot be read: Too many levels of symbolic links",
    ),
    bad("device", lambda plan: plan.symlink_to("/dev/zero"), "{plan}: is not a regular file"),
    bad("empty file", "", "{plan}: is empty"),
    bad("comments alone", "# to be written\n", "{plan}: is empty"),
    bad("ten megabytes", "# ten megabytes of this\n" * 440_000, "{plan}: is larger than 1 MB, and no plan is"),
    bad("not UTF-8", HEAD.replace("shop", "café").encode("latin-1"), "{plan}: is not UTF-8 (at line 4)"),
    bad("byte order mark", "\ufeff" + HEAD, "{plan}: begins with a byte order mark"),
    bad(
        "TOML syntax",
        "version = 1\n\n[deploy]\nname : shop\n",
        "{plan}: is not TOML: Expected '=' after a key in a key/value pair (at line 4, column 6)",
    ),
    bad(
        "TOML that ends too soon",
        'version = 1\ndeploy = ["a",',
        "{plan}: is not TOML: Invalid value (at line 2, column 15)",
    ),
    bad(
        "TOML table twice",
        HEAD + PROJECT + PRIMARY + PRIMARY,
        "{plan}: is not TOML: Cannot declare ('databases', 'primary') twice (at line 14, column 19)",
    ),
    bad("TOML nested too deeply", "a = " + "[" * 100_000, "{plan}: is not TOML that can be read: nested too deeply"),
    bad("TOML key of too many parts", "a." * 400_000, "{plan}: is not TOML that can be read: nested too deeply"),
    bad(
        "TOML integer of ten thousand digits",
        f"version = {'9' * 10_000}\n",
        "{plan}: is not TOML that can be read: a value is out of range",
    ),
]

TOP = [
    bad(
        "nothing but a version",
        "version = 1\n",
        "deploy: is required",
        "projects: is required",
        "databases: is required",
    ),
    bad("version missing", (HEAD + PROJECT + PRIMARY).removeprefix("version = 1"), "version: is required"),
    bad("version unknown", HEAD.replace("1", "2") + PROJECT + PRIMARY, "version: this program reads version 1, not 2"),
    bad(
        "version as a string",
        HEAD.replace("1", '"1"') + PROJECT + PRIMARY,
        "version: must be an integer, not a string",
    ),
    bad(
        "version as a boolean",
        HEAD.replace("1", "true") + PROJECT + PRIMARY,
        "version: must be an integer, not a boolean",
    ),
    bad(
        "unknown table", HEAD + PROJECT + PRIMARY + '[finalize]\nbake_time = "1h"\n', "finalize: is not a key of a plan"
    ),
    bad(
        "key above its table",
        'lock_timeout = "2s"\n' + HEAD + PROJECT + PRIMARY,
        "lock_timeout: is not a key of a plan",
    ),
    bad(
        "dotted key of two thousand parts",
        ".".join("a" * 2_000) + " = 1\n" + HEAD + PROJECT + PRIMARY,
        "a: is not a key of a plan",
    ),
    bad(
        "table as a value",
        'version = 1\ndeploy = "shop"\n' + PROJECT + PRIMARY,
        "deploy: must be a table, not a string",
    ),
    bad(
        "no project and no database",
        HEAD + "[projects]\n[databases]\n",
        "projects: must not be empty",
        "databases: must not be empty",
    ),
]

DEPLOY = [
    bad("deploy without a name", "version = 1\n[deploy]\n" + PROJECT + PRIMARY, "deploy.name: is required"),
    bad(
        "deploy name with a capital",
        HEAD.replace('"shop"', '"Shop 1"') + PROJECT + PRIMARY,
        'deploy.name: "Shop 1" must be small letters, digits and -',
    ),
    bad("misspelt key", deploy('lock_timout = "2s"'), "deploy.lock_timout: is not a key of this table"),
    bad(
        "misspelt value",
        deploy('on_failure = "rollbak"'),
        'deploy.on_failure: "rollbak" is not one of "rollback", "halt"',
    ),
    bad("enumerated value of a wrong type", deploy("commit = 1"), "deploy.commit: must be a string, not an integer"),
    bad(
        "auto is no minimum",
        deploy('minimum_atomicity = "auto"'),
        'deploy.minimum_atomicity: "auto" is not one of "two_phase", "held_open", "compensated"',
    ),
    bad(
        "boolean as a string",
        deploy('expand_contract = "true"'),
        "deploy.expand_contract: must be true or false, not a string",
    ),
    bad(
        "durations",
        deploy('lock_timeout = 2\nstatement_timeout = "15m"\nmax_lock_hold = "0s"\nsettle_timeout = "-1s"'),
        "deploy.lock_timeout: must be a duration in quotation marks",
        'deploy.statement_timeout: "15m" is not a duration',
        'deploy.max_lock_hold: "0s" is too short',
        'deploy.settle_timeout: "-1s" is not a duration',
    ),
    bad(
        "duration that no server takes",
        deploy('lock_timeout = "25d"'),
        'deploy.lock_timeout: "25d" is too long',
    ),
    bad("negative retries", deploy("lock_retries = -1"), "deploy.lock_retries: must be at least 0"),
    bad("endless retries", deploy("lock_retries = 1001"), "deploy.lock_retries: must be at most 1000"),
    bad(
        "retries as a boolean", deploy("lock_retries = true"), "deploy.lock_retries: must be an integer, not a boolean"
    ),
    bad(
        "retries with a fraction",
        deploy("lock_retries = 1.5"),
        "deploy.lock_retries: must be an integer, not a number with a fraction",
    ),
    bad(
        "journal of an unknown kind",
        deploy('journal = "mysql://h/j"'),
        "deploy.journal: is not a URL that is understood here",
    ),
    bad("journal without a file", deploy('journal = "sqlite://"'), "deploy.journal: names no file"),
    bad(
        "journal in memory",
        deploy('journal = "sqlite:///:memory:"'),
        "deploy.journal: must be a file: the journal outlives the process",
    ),
    bad("journal without a database", deploy('journal = "postgresql://u@h"'), "deploy.journal: names no database"),
    bad(
        "password in the plan",
        deploy('journal = "postgresql://u:hunter2@h/j"'),
        "deploy.journal: holds a password, and a plan is no place for secrets",
    ),
    bad(
        "journal from an unset variable",
        deploy('journal = "postgresql://u:${SMOOTH_TEST_UNSET}@h/j"'),
        "deploy.journal: not set in the environment: SMOOTH_TEST_UNSET",
    ),
    bad(
        "finalise",
        deploy("") + '[finalise]\nbake_time = "1 day"\ngate = []\nforbid_sessions = "v1*"\nforce = true\n',
        'finalise.bake_time: "1 day" is not a duration',
        "finalise.gate: must not be empty",
        "finalise.forbid_sessions: must be an array, not a string",
        "finalise.force: is not a key of this table",
    ),
    bad(
        "fleet",
        deploy("") + '[fleet]\ntransport = "procrastinate"\nqueue_url = "redis://h"\njob_timeout = "0s"\nqueue = 1\n',
        'deploy.journal: with transport = "procrastinate" the journal must be on a PostgreSQL server',
        "fleet.queue_url: is not a URL that is understood here",
        'fleet.job_timeout: "0s" is too short',
        "fleet.queue: must be a string, not an integer",
    ),
    bad(
        "fleet-without-a-queue",
        deploy('journal = "postgresql://journal@h/journal"\n') + '[fleet]\ntransport = "procrastinate"\n',
        "fleet.queue_url: is missing",
    ),
    bad(
        "fleet with a queue of too long a name",
        deploy("") + f'[fleet]\nqueue = "{"é" * 21}"\n',
        f'fleet.queue: "{"é" * 21}" is too long',
    ),
]

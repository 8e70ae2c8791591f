"""Several databases at once, by one plan of the installed program."""

import json

from tests.support.runs import Outcome, run_in
from tests.support.skew.releases import Releases

__all__ = ["ByPlan"]

_PLAN = """\
version = 1
[deploy]
name = "skew"
[projects.one]
path = "deploys_new"
settings = "small_settings"
env = { SMALL_DATABASES = "${SMALL_DATABASES}" }
[databases.primary]
project = "one"
alias = "default"
[databases.shards]
project = "one"
aliases = "shard_*"
[[phases]]
name = "canary"
databases = ["primary"]
[[phases]]
name = "fleet"
databases = ["shards:*"]
[finalise]
bake_time = "0s"
"""


class ByPlan:
    """By a plan over all databases of two releases, the first of them in a phase of its own.

    Args:
        releases: which.
    """

    def __init__(self, releases: Releases) -> None:
        self._releases = releases
        (releases.directory / "deploy.toml").write_text(_PLAN)

    def deploy(self) -> None:
        """Deploy the new one everywhere, and hold back what would harm the old one."""
        deployed = self._run("deploy")
        assert all(entry["contract_pending"] for entry in deployed.report["databases"])

    def roll_back(self) -> None:
        """Take that back everywhere, with the values that the old one has no place for."""
        self._run("rollback", *(["--discard-data"] if self._releases.adds_fields else []))

    def finalise(self) -> None:
        """Do everywhere what was held back."""
        finalised = self._run("finalise")
        assert not any(entry["contract_pending"] for entry in finalised.report["databases"])

    def _run(self, command: str, *options: str) -> Outcome:
        environment = {"SMALL_DATABASES": json.dumps(self._releases.settings)}
        outcome = run_in(self._releases.directory, environment, command, *options)
        assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr
        assert len(outcome.outcomes) == len(self._releases.databases)
        return outcome

"""Plans that must be refused, as data: what is written, and the exact lines that say what is wrong with it.

`make` writes a case into a directory that then holds `deploy.toml` and the project `shop`, with a settings module of
the databases that `FACTS` describes. In the expected lines `{plan}` stands for the plan's path.
"""

from tests.unit.bad_plans.base import FACTS, SETTINGS, BadPlan, make
from tests.unit.bad_plans.files_and_tables import DEPLOY, FILES, TOP
from tests.unit.bad_plans.names_and_phases import DATABASES, MANY, MEANINGS, PHASES, PROJECTS

__all__ = ["CASES", "FACTS", "SETTINGS", "BadPlan", "make"]

CASES = [*FILES, *TOP, *DEPLOY, *PROJECTS, *DATABASES, *PHASES, *MANY, *MEANINGS]

"""Settings for Django's own tests: those that come with them, with the databases and the runner that we ask for."""

import json
import os

from test_sqlite import *  # type: ignore[import-not-found]  # noqa: F403 - Django's own, of the version under test

DATABASES = json.loads(os.environ["SMOOTH_SUITES_DATABASES"])
TEST_RUNNER = os.environ["SMOOTH_SUITES_RUNNER"]

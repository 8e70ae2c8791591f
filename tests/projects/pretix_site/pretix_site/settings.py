"""A ticket shop: pretix with every plugin that comes with it, and its own settings but for the databases."""

import json
import os

# It makes directories there as soon as its settings are read.
os.environ.setdefault("DATA_DIR", os.environ["SITE_FILES"])
os.environ.setdefault("PRETIX_CONFIG_FILE", os.devnull)
os.environ.setdefault("PRETIX_DJANGO_SECRET", "for tests alone")
os.environ.setdefault("PRETIX_DATABASE_BACKEND", "postgresql")

from pretix.settings import *

DATABASES = json.loads(os.environ["SITE_DATABASES"])

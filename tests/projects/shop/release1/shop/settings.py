"""The same settings for every release; the databases come from the environment."""

import json
import os

SECRET_KEY = "for demonstration and tests alone"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "catalog", "orders"]
DATABASES = json.loads(os.environ["SHOP_DATABASES"])
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True

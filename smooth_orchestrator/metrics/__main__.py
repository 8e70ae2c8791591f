"""Prints the table of all metrics."""

import sys

from smooth_orchestrator.metrics.table import table_text

sys.stdout.write(table_text())

"""How a command went, as metrics of Prometheus: for a file that node_exporter reads, or for a Pushgateway.

`python -m smooth_orchestrator.metrics` prints the table of all metrics that docs/reference/metrics.md holds.
"""

from smooth_orchestrator.metrics.recorder import Recorder, recorder

__all__ = ["Recorder", "recorder"]

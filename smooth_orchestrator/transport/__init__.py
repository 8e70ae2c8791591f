"""How a coordinator reaches its workers."""

from smooth_orchestrator.transport.base import OnOutput, OutputLine, Worker, WorkerLost, WorkerTransport
from smooth_orchestrator.transport.local import LocalTransport

__all__ = ["LocalTransport", "OnOutput", "OutputLine", "Worker", "WorkerLost", "WorkerTransport"]

"""What leaves the process: the worker's /metrics endpoint and the `idemwatch` command.

It may import `idempotency`, never the other way round.
"""

from .worker import serve_worker_metrics

__all__ = ["serve_worker_metrics"]

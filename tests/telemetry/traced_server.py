"""What the tests of traces ask, and where its spans arrive."""

from __future__ import annotations

from dataclasses import dataclass

import httpx
from chaos_upstream import ChaosUpstream
from otlp_collector import OtlpCollector
from server_process import ServerProcess


@dataclass
class Traced:
    """The server and everything around it."""

    server: ServerProcess
    collector: OtlpCollector
    upstream: ChaosUpstream
    http: httpx.Client

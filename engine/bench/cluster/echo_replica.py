"""Replicas of an engine that answers at once, with the number of the question."""

import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "http_api"))

from dgemma_engine.cluster.application import EngineReplica
from dgemma_engine.cluster.arguments import EngineArguments
from remote_engine import EchoEngine


class EchoReplica(EngineReplica):
    """Loads nothing."""

    @staticmethod
    def load(arguments: EngineArguments, report: Callable[[int, str], None]) -> EchoEngine:
        """Returns the engine."""
        return EchoEngine()

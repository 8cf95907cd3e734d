"""Requests that Schemathesis makes from the published document, valid and not, and its checks of the answers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@dataclass(frozen=True, kw_only=True)
class Sort:
    """Requests for one operation, all of them valid or all of them not."""

    label: str
    mode: GenerationMode


class Fuzzer:
    """Sends generated requests to one server.

    Args:
        schema: the document that the server publishes, as Schemathesis loads it.
    """

    def __init__(self, schema: Any) -> None:
        found = (one.ok() for one in schema.get_all_operations())
        self._operations = {operation.label: operation for operation in found}
        self.sorts = [
            Sort(label=label, mode=mode)
            for label, operation in self._operations.items()
            for mode in GenerationMode
            # To a GET nothing invalid can be sent.
            if operation.body or mode is GenerationMode.POSITIVE
        ]

    def num_of_sort(self, num_cases: int) -> int:
        """Returns how many requests of each sort make `num_cases`; GETs do not count, since few of them differ."""
        return num_cases // sum(one.label.startswith("POST") for one in self.sorts)

    def ask(self, sort: Sort, num_cases: int, statuses: Counter[int]) -> None:
        """Sends requests and checks the answers.

        Args:
            sort: which requests.
            num_cases: most requests.
            statuses: counts the status codes of the answers; updated in place.

        Raises:
            Exception: the smallest request found whose answer is not as published, or a fault of the server.
        """

        @seed(num_cases)
        @settings(
            max_examples=num_cases,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
        )
        @given(case=self._operations[sort.label].as_strategy(generation_mode=sort.mode))
        def ask(case: schemathesis.Case) -> None:
            response = case.call()
            statuses[response.status_code] += 1
            case.validate_response(response, checks=CHECKS)

        ask()

"""Bodies that Schemathesis makes from the published document, valid and not: answered as it describes, never a fault.

`make fuzz-http` asks far more of them.
"""

from __future__ import annotations

import logging
import os
from dataclasses import replace

import pytest
import schemathesis
from dgemma_engine.http_api.app import OPENAPI_PATH, create_app
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.engine.http_api.front_door import FREE_PORT, AnsweringEngine

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
NUM_CASES = int(os.environ.get("DGEMMA_FUZZ_CASES", "5000"))
# The name that Schemathesis's client gives to the server.
SCHEMA = schemathesis.openapi.from_asgi(
    OPENAPI_PATH, create_app(AnsweringEngine("alpha", "beta"), replace(FREE_PORT, hosts=("testserver",)))
)
OPERATIONS = {operation.label: operation for operation in (found.ok() for found in SCHEMA.get_all_operations())}
KINDS = [
    (label, mode)
    for label, operation in OPERATIONS.items()
    for mode in GenerationMode
    # To a GET nothing invalid can be sent.
    if operation.body or mode is GenerationMode.POSITIVE
]
NUM_OF_KIND = NUM_CASES // sum(label.startswith("POST") for label, _ in KINDS)


@pytest.mark.slow
@pytest.mark.parametrize(("label", "mode"), KINDS)
def test_answer_is_as_published(label: str, mode: GenerationMode, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)

    @seed(NUM_CASES)
    @settings(
        max_examples=NUM_OF_KIND,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @given(case=OPERATIONS[label].as_strategy(generation_mode=mode))
    def ask(case: schemathesis.Case) -> None:
        case.call_and_validate(checks=CHECKS)

    ask()
    assert caplog.messages == []

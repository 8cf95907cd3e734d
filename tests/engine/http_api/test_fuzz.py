"""Bodies that Schemathesis makes from the published document, valid and not: answered as it describes, never a fault.

`make fuzz-http` sends 100,000.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace

import pytest
import schemathesis
from dgemma_engine.http_api.app import OPENAPI_PATH, create_app

from tests.engine.http_api.fuzzing import Fuzzer, Sort
from tests.engine.http_api.running_server import FREE_PORT, AnsweringEngine

NUM_CASES = 5_000
# The name that Schemathesis's client gives to the server.
APP = create_app(AnsweringEngine("alpha", "beta"), replace(FREE_PORT, hosts=("testserver",)))
FUZZER = Fuzzer(schemathesis.openapi.from_asgi(OPENAPI_PATH, APP))


@pytest.mark.slow
@pytest.mark.parametrize("sort", FUZZER.sorts, ids=lambda sort: f"{sort.label}-{sort.mode.value}")
def test_answer_is_as_published(sort: Sort, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    statuses: Counter[int] = Counter()
    FUZZER.ask(sort, FUZZER.num_of_sort(NUM_CASES), statuses)
    assert statuses and caplog.messages == []

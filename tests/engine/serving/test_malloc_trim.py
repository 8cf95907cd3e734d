"""Memory is returned to the system after work, while no work runs, and never again if that is not possible."""

from __future__ import annotations

import asyncio
import ctypes
import platform
import sys

import psutil
import pytest
from dgemma_engine.serving.malloc_trim import trim_heap, trim_when_idle


class Work:
    """Counts how often memory is returned."""

    def __init__(self, *, can_give: bool = True) -> None:
        self.done, self.given, self.busy, self._can_give = 0, 0, False, can_give

    def give(self) -> bool:
        assert not self.busy
        self.given += 1
        return self._can_give

    def start(self) -> asyncio.Task[None]:
        return asyncio.create_task(trim_when_idle(lambda: self.done, lambda: self.busy, trim=self.give, every_s=0.001))

    async def until_given(self, times: int) -> None:
        async with asyncio.timeout(5):
            while self.given < times:
                await asyncio.sleep(0.001)


async def test_memory_is_returned_only_after_work() -> None:
    work = Work()
    giving = work.start()
    await asyncio.sleep(0.02)
    assert work.given == 0
    work.done += 1
    await work.until_given(1)
    await asyncio.sleep(0.02)
    assert work.given == 1, "no work was done since"
    work.done += 1
    await work.until_given(2)
    giving.cancel()


async def test_memory_is_returned_only_while_no_work_runs() -> None:
    work = Work()
    work.done, work.busy = 0, True
    giving = work.start()
    await asyncio.sleep(0.005)
    work.done = 1
    await asyncio.sleep(0.02)
    assert work.given == 0
    work.busy = False
    await work.until_given(1)
    giving.cancel()


async def test_trimming_ends_if_memory_cannot_be_returned() -> None:
    work = Work(can_give=False)
    giving = work.start()
    await asyncio.sleep(0)
    work.done = 1
    await asyncio.wait_for(giving, 5)
    assert work.given == 1


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="no glibc: returning memory was not checked")
def test_free_gaps_between_used_blocks_are_returned_to_the_system() -> None:
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    size = 100_000  # Below the size that malloc allocates with mmap() and so returns by itself.
    blocks = [libc.malloc(size) for _ in range(1_000)]
    for block in blocks:
        ctypes.memset(block, 1, size)
    for block in blocks[::2]:
        libc.free(block)
    before = psutil.Process().memory_info().rss
    assert trim_heap()
    given = before - psutil.Process().memory_info().rss
    for block in blocks[1::2]:
        libc.free(block)
    assert given > 25_000_000


def test_other_platforms_report_that_memory_cannot_be_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not trim_heap()

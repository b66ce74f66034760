"""How many requests may be under way at once, so that the service keeps answering?"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

BUSY = (429, 529)  # too many requests; overloaded


class Limiter:
    """Additive increase, multiplicative decrease: half as many after a 429 or 529, one more after a full round of
    answers. Between 1 and `most`."""

    def __init__(self, most: int):
        self.most = most
        self.limit = float(most)
        self.under_way = 0
        self.lowered_at = 0.0
        self._changed = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def slot(self) -> AsyncIterator[float]:
        """Waits for a place; yields the time at which it was taken."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.under_way < int(self.limit))
            self.under_way += 1
        try:
            yield time.monotonic()
        finally:
            self.under_way -= 1
            async with self._changed:
                self._changed.notify_all()

    def heed(self, status: int, started: float) -> None:
        """Learns from the status of an attempt. A burst halves once: attempts sent before the last halving could not
        know of it."""
        if status < 400:
            self.limit = min(self.most, self.limit + 1 / self.limit)
        elif status in BUSY and started > self.lowered_at:
            self.lowered_at = time.monotonic()
            self.limit = max(1.0, self.limit / 2)

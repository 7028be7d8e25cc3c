"""How often a caller may call: requests in the last sixty seconds."""

from __future__ import annotations

import math
import time

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from service.auth.principal import Principal
from service.errors import TooManyRequestsError


class RateCounter:
    """Counts each caller's requests over a moving minute, in memory.

    Each API process counts for itself: with N of them behind one address a caller may get up to N
    times its rate, and a restart forgets. It keeps a runaway client off; it is no bill.
    """

    def __init__(self) -> None:
        self._window = MovingWindowRateLimiter(MemoryStorage())

    def count(self, principal: Principal) -> None:
        """Count one request.

        Raises:
            TooManyRequestsError: it was one too many; it does not count.
        """
        rate = principal.limits.rate_per_minute
        if rate is None:
            return
        item = RateLimitItemPerMinute(rate)
        if self._window.hit(item, principal.id):
            return
        free_at = self._window.get_window_stats(item, principal.id).reset_time
        raise TooManyRequestsError(
            f"More than {rate} requests within a minute.",
            retry_after=max(1, math.ceil(free_at - time.time())),
        )

"""What work costs: time by the clock, and of processors."""

import dataclasses
import time
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Cost:
    """Seconds by the clock, and of all processor cores together."""

    seconds: float = 0.0
    processor: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.seconds + other.seconds, self.processor + other.processor)

    def __mul__(self, times: float) -> "Cost":
        return Cost(self.seconds * times, self.processor * times)

    def of_many(self, count: int, at_once: int, cores: int) -> float:
        """Seconds that so many of these take, so many at once: no less than their processors' time on all cores.

        Args:
            cores: of processors; 0 where the work is an accelerator's.
        """
        return count * max(self.seconds / at_once, self.processor / cores if cores else 0.0)


class Stopwatch:
    """Runs from the moment it is made."""

    def __init__(self):
        self._seconds, self._processor = time.monotonic(), time.process_time()

    def cost(self) -> Cost:
        """Of all that this process did since."""
        return Cost(time.monotonic() - self._seconds, time.process_time() - self._processor)


def cost_of(call: Callable[[], object]) -> Cost:
    """Of a call."""
    watch = Stopwatch()
    call()
    return watch.cost()

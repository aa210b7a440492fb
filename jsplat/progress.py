"""One line of progress with the current numbers and an ETA, on stderr."""

import sys
import time


class Progress:
    """Counts work done towards a known total.

    On a terminal the line is redrawn; elsewhere a line is printed at most every `interval` seconds.
    """

    def __init__(self, what: str, total: int, interval: float = 15.0):
        self.what, self.total, self.interval = what, max(total, 1), interval
        self.start = self.last = time.monotonic()
        self.done = 0

    def advance(self, steps: int = 1, **values: float) -> None:
        """Counts `steps` more as done and shows `values` (loss, mIoU) beside the ETA."""
        self.done += steps
        now = time.monotonic()
        finished = self.done >= self.total
        if not finished and now - self.last < (0.2 if sys.stderr.isatty() else self.interval):
            return
        self.last = now
        elapsed = now - self.start
        eta = elapsed / self.done * (self.total - self.done)
        shown = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        time_left = f"{elapsed:.0f} s" if finished else f"ETA {eta:.0f} s"
        line = f"{self.what}: {self.done}/{self.total}  {shown}  {time_left}"
        end = "\n" if finished or not sys.stderr.isatty() else ""
        print(("\r\x1b[K" if sys.stderr.isatty() else "") + line, end=end, file=sys.stderr, flush=True)

"""The account: every answered visit is one row and one increment, or the run does not count.

A 200 without its row is never allowed. A row without its 200 is allowed only for a request whose answer the
load generator did not wait for (wrk's requests in flight at its end), or one that failed.
"""

from dataclasses import asdict, dataclass


@dataclass
class Account:
    """What one run left behind, each counted from the run's start."""

    ok: int  # 200s
    rows: int  # rows in acessos
    cached: int  # increments of contador_cache
    unanswered: int  # requests in flight at the end, and failed ones: rows they may have left
    shown_total: int  # the total that the visit after the run was shown, less that visit
    shown_cache: int  # the cache that it was shown, less that visit
    strict: bool  # whether rows and increments must be equal even when clients go away

    def problems(self) -> list[str]:
        """What is wrong with the account; nothing when it is right."""
        found = []
        if not self.ok <= self.rows <= self.ok + self.unanswered:
            found.append(f"{self.ok} 200s and {self.unanswered} unanswered requests, but {self.rows} rows")
        if not self.ok <= self.cached <= self.ok + self.unanswered:
            found.append(f"{self.ok} 200s and {self.unanswered} unanswered requests, but {self.cached} increments")
        if self.cached > self.rows or (self.strict and self.cached != self.rows):
            found.append(f"{self.rows} rows, but {self.cached} increments")
        if self.shown_total != self.rows:
            found.append(f"{self.rows} rows, but the page shows {self.shown_total}")
        if self.shown_cache != self.cached:
            found.append(f"{self.cached} increments, but the page shows {self.shown_cache}")
        return found

    def record(self) -> dict:
        return asdict(self)

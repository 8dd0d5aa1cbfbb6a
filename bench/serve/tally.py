"""What became of each request of a served run, on the clock of its schedule."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Served:
    """One request; times in seconds from the start of the run."""

    scheduled_s: float
    sent_s: float
    started_s: float
    ended_s: float
    batch: int
    """Requests that were served together."""
    status: str = "ok"
    """Or the name of its error."""
    first_token_s: float | None = None
    last_token_s: float | None = None
    tokens_asked: int | None = None
    tokens_sent: int | None = None
    tokens_got: int | None = None

    @property
    def latency_s(self) -> float:
        """From the scheduled arrival on: whoever sends late makes nobody wait less."""
        return self.ended_s - self.scheduled_s

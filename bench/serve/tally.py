"""What became of each request of a served run, on the clock of its schedule.

All times are seconds from the start of the run. A latency begins when a request was to come, not
when it was sent: whoever sends late makes nobody wait less.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.serve.slo import Slo

OK, LEFT = "ok", "left"
"""Answered; and still waiting when the run ended, which is no error, and over every limit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """What became of one request."""

    scheduled_s: float
    """When it was to come: every latency begins here."""
    sent_s: float
    started_s: float
    """When its service began; of an endpoint, which does not show that, when it was sent."""
    ended_s: float
    """Its last byte, the device synchronised; or the end of the run."""
    batch: int | None = None
    """Requests that were served together, those of one batch started at one time; None where
    they share passes, or the server does not show it."""
    status: str = OK
    """`ok`, `left`, or the name of its error."""
    sample: int | None = None
    """Which of the distinct samples it asked for."""
    first_token_s: float | None = None
    last_token_s: float | None = None
    tokens_asked: int | None = None
    tokens_sent: int | None = None
    tokens_got: int | None = None

    @property
    def latency_s(self) -> float:
        """From when it was to come until it ended."""
        return self.ended_s - self.scheduled_s

    @property
    def wait_s(self) -> float:
        """From when it was to come until its service began."""
        return self.started_s - self.scheduled_s

    @property
    def send_lag_s(self) -> float:
        """How late the client sent it."""
        return self.sent_s - self.scheduled_s

    @property
    def ttft_s(self) -> float | None:
        """From when it was to come until its first content token."""
        return None if self.first_token_s is None else self.first_token_s - self.scheduled_s

    @property
    def tpot_s(self) -> float | None:
        """Time for each token after the first; None where tokens or times are not known."""
        if self.first_token_s is None or self.last_token_s is None or (self.tokens_got or 0) < 2:
            return None
        assert self.tokens_got is not None
        return (self.last_token_s - self.first_token_s) / (self.tokens_got - 1)

    @property
    def is_error(self) -> bool:
        """Whether it ended with an error."""
        return self.status not in (OK, LEFT)

    def holds(self, slo: Slo) -> bool:
        """Whether it was answered within every limit; a time that is not known holds none.

        A single token has no time between tokens, and holds that limit.
        """
        pairs = (
            (slo.latency_s, self.latency_s),
            (slo.ttft_s, self.ttft_s),
            (slo.tpot_s, 0.0 if self.tokens_got == 1 else self.tpot_s),
        )
        limited = [(limit, value) for limit, value in pairs if limit is not None]
        in_time = all(value is not None and value <= limit for limit, value in limited)
        return self.status == OK and in_time

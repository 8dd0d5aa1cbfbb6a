"""What users send and how soon they need it, as it is typed: '800/day', p95 within '10min'.

A load comes at random at the rate of its busiest hour: of a day's items that hour has `--busy-hour`
or, where nobody said so, one in 24. Several loads share one device, each by its workload.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from bench.core.errors import UsageError
from bench.core.traffic import MOST_SERVERS
from bench.core.units import PERIOD_S, parse_duration_s, parse_frequency, parse_percentile

_PERCENT = r"([0-9]*\.?[0-9]+)\s*%"
HOUR_S, DAYS = PERIOD_S["h"], ("day", "d")
EVEN_FRAC = HOUR_S / PERIOD_S["day"]
"""Part of a day that an hour is."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """Items of one workload that come, and how often."""

    workload: str
    """In the forms of --workload; '' for each that was measured, by itself."""
    amount: str
    """As it was given: 800/day."""
    period: str
    period_s: float
    """Seconds of the busiest hour in which a period's items would come."""
    items_per_s: float
    """In the busiest hour."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Loads that share devices, and the limit that most of their items have to hold."""

    loads: tuple[Load, ...]
    latency: str | None = None
    latency_s: float | None = None
    at: str = "p95"
    at_frac: float = 0.95
    busy_hour: str | None = None
    urgent: str | None = None
    urgent_frac: float = 0.0
    urgent_s: float | None = None
    servers: int = 1


def parse_wanted(
    loads: Sequence[str],
    *,
    latency: str | None = None,
    at: str | None = None,
    busy_hour: str | None = None,
    urgent: str | None = None,
    servers: int = 1,
) -> Wanted | None:
    """Read the flags; None without a load, `UsageError` for what cannot be meant."""
    if not loads:
        if any((latency, at, busy_hour, urgent)) or servers != 1:
            raise UsageError(
                "--latency, --at, --busy-hour, --urgent and --servers are about the items of "
                "--load: give both"
            )
        return None
    if latency is None and (at or urgent):
        raise UsageError("--at and --urgent say how soon items are needed: give --latency as well")
    if not 1 <= servers <= MOST_SERVERS:
        raise UsageError(f"--servers {servers} is not between 1 and {MOST_SERVERS} devices")
    latency_s = latency and parse_duration_s(latency, what="--latency", is_over_0=True)
    urgent_frac, urgent_s = _urgent(urgent, latency_s=latency_s or 0.0)
    busy_frac = None if busy_hour is None else _busy(busy_hour)
    found = tuple(_load(text, busy_frac=busy_frac) for text in loads)
    if len(found) > 1 and not all(one.workload for one in found):
        raise UsageError(
            "several --load share one device: name the workload of each, "
            "such as imaging-infer:200/day"
        )
    return Wanted(
        loads=found,
        latency=latency,
        latency_s=latency_s or None,
        at=(at or Wanted.at).lower(),
        at_frac=parse_percentile(at or Wanted.at, what="--at"),
        busy_hour=busy_hour,
        urgent=urgent,
        urgent_frac=urgent_frac,
        urgent_s=urgent_s,
        servers=servers,
    )


def _load(text: str, *, busy_frac: float | None) -> Load:
    workload, _, amount = (part.strip() for part in text.rpartition(":"))
    num, period = parse_frequency(amount, what=f"--load {text!r}", example="200/day")
    period_s = PERIOD_S[period]
    if busy_frac is not None:
        if period not in DAYS:
            raise UsageError(f"--busy-hour is a part of a day: give --load {text!r} per day")
        period_s = HOUR_S / busy_frac
    return Load(
        workload=workload,
        amount=amount,
        period=period,
        period_s=period_s,
        items_per_s=num / period_s,
    )


def _busy(text: str) -> float:
    match = re.fullmatch(_PERCENT, text.strip())
    frac = float(match[1]) / 100.0 if match else 0.0
    if not EVEN_FRAC <= frac <= 1.0:
        raise UsageError(
            f"--busy-hour {text!r} is not a part of a day's items from 4.17% (an hour like all "
            "others) to 100%, such as 12%"
        )
    return frac


def _urgent(text: str | None, *, latency_s: float) -> tuple[float, float | None]:
    if text is None:
        return 0.0, None
    match = re.fullmatch(rf"\s*{_PERCENT}\s*:(.+)", text)
    if match is None or not 0.0 < float(match[1]) < 100.0:
        raise UsageError(
            f"--urgent {text!r} is not a part of the items between 0% and 100% with its time, "
            "such as 5%:2min"
        )
    urgent_s = parse_duration_s(match[2], what="--urgent", is_over_0=True)
    if urgent_s > latency_s:
        raise UsageError(f"--urgent {text!r} gives urgent items more time than --latency the rest")
    return float(match[1]) / 100.0, urgent_s

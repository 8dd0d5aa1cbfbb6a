"""What served runs came to: who came, who was in time, how long they waited, what a device carries.

Every time is from the scheduled arrival of a request, so also what it waited for; a rate is one of
requests. One line a run, as everywhere; the words for a knee are those of the panels too.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from bench.analysis.offered_load import OfferedLoad, offered_loads, request_unit
from bench.analysis.trials.configuration import Trials
from bench.analysis.trials.titles import LONG, SERVED
from bench.core.units import PERIOD_S
from bench.report.tables import cells
from bench.report.tables.cells import AnyCell, Cell, Ends, ends_of, text_of, title_cell
from bench.report.tables.grid import Grid
from bench.report.tables.run_table import Columns, caption_of, configuration_grid

HOW = {
    "confirmed": "confirmed by live runs",
    "low_only": "upper end not confirmed",
    "refuted": "refuted by a live run",
    "predicted": "only predicted",
    "measured": "by live runs",
}
LOADGEN = "measured with LoadGen; not a submission"
TITLE = tuple(name for name in LONG if name not in SERVED)
"""What is said of a served setting beside its arrivals and its limit."""
_NOTES = {
    "lat_p50_ms": "p50, p99, first token: from the scheduled arrival, so what a user waits, queue "
    "included",
    "attainment_frac": "in time: requests within the limit; the interval allows for requests that "
    "are late in bursts",
    "users": "users: who may be there at once, each with time to read before the next request",
}
"""What is said where there is such a column."""
SPARE = (
    *("send lag p99", "batch", "service", "wait p50", "errors", "offered"),
    *("p50", "used", "users"),
)


def rate_scale(unit: str) -> cells.Scale:
    """Scale of a rate: per second, or per hour or day where few come."""

    def scale(rate_per_s: float) -> tuple[float, str]:
        least = 1.0 / rate_per_s if rate_per_s > 0.0 else 0.0
        period = next((one for one in ("s", "h") if least <= PERIOD_S[one]), "day")
        return cells.of(f"{unit}/{period}", period_s=PERIOD_S[period])(rate_per_s)

    return scale


def carried(load: OfferedLoad, *, unit: str) -> tuple[str, str]:
    """What a setting carries, and how that is known: ('31.2 - 35.9 volume/h', 'only predicted')."""
    knee = load.knee
    if knee is None:
        return "", ""
    scale, low, high = rate_scale(unit), knee.low_per_s, knee.high_per_s
    if high == 0.0:
        found: AnyCell = "nothing"
    elif low is not None and low == high:
        found = cells.quantity(low, scale, prefix="about ")
    elif low is not None and high is not None:
        found = cells.span((low, high), scale)
    else:
        prefix = "less than " if low is None else "at least "
        found = cells.quantity(low or high, scale, prefix=prefix)
    rate = text_of(found)
    if load.law.startswith("day:"):  # a replay is of the busiest hour, a rate that was tried is not
        is_peak = any(one.values("capacity_per_s") for one in load.runs)
        rate += " in the busiest hour" if is_peak else " over the whole day"
    return rate, " or ".join(HOW.get(word, word) for word in knee.how)


def share_cell(share: float | None, *, ends: Ends | None = None) -> AnyCell:
    """'99.53 % [99.1, 99.8]': never rounded up to all of them."""
    if share is None:
        return ""
    low, high = map(_hundredths, ends or (share, share))
    return Cell(
        text=f"{_hundredths(share)} %", aside=f"[{low}, {high}]" if low != high else "", key=share
    )


def _hundredths(share: float) -> str:
    return f"{math.floor(share * 1e4 + 1e-6) / 1e2:g}"


def offered_grid(lines: Sequence[Trials], *, has_files: bool = False) -> Grid:
    """One line a served run, and below it what each setting carries."""
    places: Columns = {"device": caption_of}
    if has_files:
        places = {**places, "file": lambda one: one.file}
    grid = configuration_grid(lines, columns={**places, **COLUMNS}, but=SERVED)
    notes = _carries(lines)
    notes += [note for column, note in _NOTES.items() if any(one.values(column) for one in lines)]
    return replace(
        grid,
        notes=(*notes, *([LOADGEN] if any(map(_loadgen, lines)) else [])),
        names=("device", "arrivals", "limit"),
        spare=SPARE,
    )


def _carries(lines: Sequence[Trials]) -> list[str]:
    """'imaging-infer large fp32 b1 carries 31.2 - 35.9 volume/h within 2s@p99 (only predicted)'."""
    found, loads = [], offered_loads(lines)
    has_devices = len({load.first.one_device for load in loads}) > 1
    for load in loads:
        rate, how = carried(load, unit=load.unit)
        if rate:
            title = text_of(title_cell(load.first.first, shown=TITLE))
            law, most = load.law.partition("#")[0], load.first.mean("max_batch") or 1
            own = [load.first.one_device] if has_devices else []
            own += [law] if law not in ("", "poisson") else []
            own += [f"up to {most:g} at once"] if most > 1 else []
            title += f" ({', '.join(own)})" if own else ""
            found.append(f"{title} carries {rate} at {load.slo} ({how})")
    return found


def _rate(column: str) -> Callable[[Trials], AnyCell]:
    return lambda one: cells.quantity(one.mean(column), rate_scale(request_unit(one)))


def _time(column: str) -> Callable[[Trials], AnyCell]:
    def cell(one: Trials) -> AnyCell:
        value_ms = one.mean(column)
        return cells.quantity(None if value_ms is None else value_ms * 1e-3, cells.seconds)

    return cell


def _tokens_of_user(one: Trials) -> AnyCell:
    """How fast an answer comes to whoever reads it."""
    tpot_ms = one.mean("tpot_p50_ms")
    return cells.quantity(1e3 / tpot_ms if tpot_ms else None, cells.of("token/s"))


def _share(one: Trials) -> AnyCell:
    share = one.mean("attainment_frac")
    ends = map(one.mean, ("attainment_low_frac", "attainment_high_frac"))
    return share_cell(share, ends=ends_of(*ends))


def _verdict(one: Trials) -> str:
    """Whether the limit held in every run of it; '' where the capacity below says more."""
    if one.word("capacity_is"):
        return ""
    load = OfferedLoad(runs=[one])
    verdicts = {live.verdict(load.at) for live in load.live}
    return next(iter(verdicts)) if len(verdicts) == 1 else "undecided" if verdicts else ""


def _batch(one: Trials) -> AnyCell:
    return cells.quantity(one.mean("batch_mean")) if (one.mean("max_batch") or 1) > 1 else ""


def _loadgen(one: Trials) -> str:
    found = {row.get("loadgen_valid") for row in one.rows} - {None}
    return "" if not found else "VALID" if found == {True} else "INVALID"


COLUMNS: Columns = {
    "arrivals": lambda one: one.text("arrivals") or one.text("scenario"),
    "offered": _rate("offered_per_s"),
    "answered": lambda one: _rate("achieved_per_s")(one) if _loadgen(one) else "",
    "batch": _batch,
    "service": _time("service_p50_ms"),
    "in time [95 %]": _share,
    "limit": lambda one: one.text("slo"),
    "verdict": lambda one: Cell(word=_verdict(one).upper()),
    "wait p50": _time("wait_p50_ms"),
    "p50": _time("lat_p50_ms"),
    "p99": _time("lat_p99_ms"),
    "first token": _time("ttft_p50_ms"),
    "first token p99": _time("ttft_p99_ms"),
    "per token p99": _time("tpot_p99_ms"),
    "per user": _tokens_of_user,
    "used": lambda one: cells.share(one.mean("utilisation_frac")),
    "users": lambda one: cells.quantity(one.mean("users")),
    "send lag p99": _time("send_lag_p99_ms"),
    "errors": lambda one: cells.quantity(one.mean("errors") or None),
    "LoadGen": lambda one: Cell(word=_loadgen(one)) if _loadgen(one) else "",
}
"""Cells of a served run by head."""

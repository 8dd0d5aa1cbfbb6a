"""Rows of served runs as `bench run --arrivals` leaves them, at rates on both sides of the knee."""

import zlib

from bench.results.schema import Row, Value
from tests.analysis.synthetic_rows import BASE

CARD: Row = {"device": "cuda:0", "device_type": "cuda", "device_name": "Accelerator 80 GB"}
CAPACITY: Row = {
    "capacity_per_s": 254 / 3600.0,
    "capacity_low_per_s": 244 / 3600.0,
    "capacity_high_per_s": 262 / 3600.0,
    "capacity_is": "confirmed",
}


def live_run(
    rate_per_s: float,
    share: float,
    *,
    half_width: float = 0.002,
    law: str = "poisson",
    seconds: float = 3600.0,
    **cells: Value,
) -> Row:
    """One run in which so large a share of the requests was in time."""
    arrivals = f"{law}:{rate_per_s * 3600.0:.6g}/h"
    return {
        **BASE,
        **CARD,
        "workload": "imaging-infer",
        "scenario": "open_loop",
        "config_hash": f"{zlib.crc32(f'{arrivals} {sorted(cells.items())}'.encode()):08x}",
        "params_json": '{"batch": 1}',
        "size": "large",
        "batch": 1,
        "items": None,
        "steps": None,
        "items_unit": "volume",
        "trial": 0,
        "arrivals": arrivals,
        "slo": "2min@p95",
        "requests": round(rate_per_s * seconds),
        "errors": 0,
        "window_s": seconds,
        "offered_per_s": rate_per_s,
        "achieved_per_s": rate_per_s * 0.99,
        "attainment_frac": share,
        "attainment_low_frac": max(0.0, share - half_width),
        "attainment_high_frac": min(1.0, share + half_width),
        "goodput_per_s": rate_per_s * share,
        "lat_p50_ms": 21e3,
        "lat_p99_ms": 96e3,
        "lat_n": 700,
        "wait_p50_ms": 9e3,
        "wait_p99_ms": 80e3,
        "service_p50_ms": 12e3,
        "service_cv": 0.4,
        "send_lag_p99_ms": 0.4,
        "utilisation_frac": rate_per_s * 12.0,
        "max_batch": 1,
        "batch_mean": 1.0,
        **cells,
    }


def served_rows() -> list[Row]:
    """Six rates; the capacity was confirmed by live runs."""
    shares = {120: 0.9995, 180: 0.997, 220: 0.985, 250: 0.958, 265: 0.93, 290: 0.61}
    rows = [
        live_run(per_h / 3600.0, share, half_width=(1.0 - share) / 4)
        for per_h, share in shares.items()
    ]
    rows[3] |= {**CAPACITY, "arrivals": "auto"}
    rows[5] |= {"status": "WARN", "reasons": "overloaded", "lat_p50_ms": None, "lat_p99_ms": None}
    return rows

"""Rows of several devices and modelled links, with times that can be worked out by hand.

A step is compute and exposed communication: compute is 100 ms, communication is what the caller
says. Trials differ by stated factors, so that intervals are known exactly.
"""

from typing import Any

from bench.core.nouns import Layout
from bench.results.schema import Row, Value
from tests.analysis.synthetic_rows import trials

FACTORS = (0.99, 1.0, 1.01)
STEPS = 50
COMPUTE_MS = 100.0


def real_run(
    exposed_ms: float = 0.0,
    *,
    devices: int = 1,
    factors: tuple[float, ...] = FACTORS,
    cells: dict[str, Value] | None = None,
) -> list[Row]:
    """Trials on devices over the link that is there, one for each factor on the step."""
    spread: Row = {"mode": "real", "device_count": devices, "steps": STEPS}
    spread["items"] = 2 * STEPS * devices
    if devices > 1:
        spread |= {"parallel": "ddp", "layout": f"dp{devices}", "grad_accum": 1}
    spread |= cells or {}
    names = ("link", "mode", "mitigation", "grad_accum", "parallel", "layout", "size", "workload")
    spread.setdefault("config_hash", "-".join(str(spread.get(name)) for name in names))
    rows: list[Row] = []
    for trial, factor in enumerate(factors):
        step_ms = (COMPUTE_MS + exposed_ms) * factor
        quantiles: Row = {"step_p05_ms": step_ms * 0.98, "step_p95_ms": step_ms * 1.03}
        of_trial = {"trial": trial, **quantiles, **spread}
        rows += trials(step_ms=step_ms, num=1, noise_frac=0.0, **of_trial)  # type: ignore[arg-type]
    return rows


def link_run(
    link: str, exposed_ms: float, *, cells: dict[str, Value] | None = None, **spread: Any
) -> list[Row]:
    """Trials of one configuration over a modelled link, by default of eight devices."""
    modelled: Row = {
        "mode": "emulated",
        "link": link,
        "bucket_bytes": Layout().bucket_bytes,
        "comm_total_ms": 2.0 * exposed_ms,
        "comm_low_ms": 1.8 * exposed_ms,
        "comm_high_ms": 2.4 * exposed_ms,
        "comm_exposed_ms": exposed_ms,
        "comm_bytes": 50_000_000,
        "compute_step_ms": COMPUTE_MS,
        "step_low_ms": COMPUTE_MS + 0.8 * exposed_ms,
        "step_high_ms": 1.05 * COMPUTE_MS + 1.25 * exposed_ms,
        "overlap": "yes",
        "link_method": "curve",
        "simulated_error_frac": 0.004,
        "straggler_step_ms": 1.02 * (COMPUTE_MS + exposed_ms),
    }
    return real_run(exposed_ms, **{"devices": 8, **spread}, cells=modelled | (cells or {}))


def three_links(**cells: Value) -> list[Row]:
    """Eight devices over three links: 104, 109 and 160 ms a step."""
    exposed_ms = {"h100-nvlink": 4.0, "h800-nvlink": 9.0, "pcie5": 60.0}
    return [row for link, ms in exposed_ms.items() for row in link_run(link, ms, cells=cells)]


def device_sweep() -> list[Row]:
    """Three links at 2, 8, 64 and 512 devices, a mitigation, another mode, and one device."""
    return [
        *real_run(),
        *(
            row
            for link, ms in (("h100-nvlink", 4.0), ("h800-nvlink", 9.0), ("pcie5", 60.0))
            for devices in (2, 8, 64, 512)
            for row in link_run(link, ms * (1.0 + 0.1 * devices**0.5), devices=devices)
        ),
        *link_run("pcie5", 30.0, cells={"mitigation": "powersgd-2"}),
        *three_links(mode="throttled"),
    ]


def odd_links() -> list[Row]:
    """Links with long names, of two levels, without a rate, a thousand times slower, and a file."""
    exposed_ms = {
        "bw=25.123456789GB/s,latency=5.25us,algorithm=tree,error=0.3": 30.0,
        "h800-nvlink*8/ndr*4": 15.0,
        "wan-hub": 50_000.0,
        "infinite": 0.0,
        "/etc/a/very/long/path/of/a/link/that/somebody/measured.yaml@12345678": 9.0,
    }
    cells: dict[str, Value] = {"parallel": "tp", "layout": "tp8 x dp4", "grad_accum": 4}
    return [
        row
        for link, ms in exposed_ms.items()
        for row in link_run(link, ms, devices=32, cells=cells)
    ]

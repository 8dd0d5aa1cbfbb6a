"""Rows with everything a report shows: energy, latency, roofs, reservations, modes and links."""

import json
import zlib
from collections.abc import Iterator
from pathlib import Path

from bench.results.beside_rows import append_samples
from bench.results.schema import Row, Value
from bench.results.store import Sidecar, samples_path, write_sidecar
from tests.analysis.synthetic_rows import trials, write_csv

# device: (step time of training in ms, FLOP/s, bytes/s, W)
DEVICES = {
    "Accelerator 80 GB": (40.0, 3.0e14, 1.9e12, 380.0),
    "Graphics card 24 GB": (110.0, 8.0e13, 0.9e12, 260.0),
    "Server processor, 2 x 32 cores": (2400.0, 3.0e12, 0.3e12, 420.0),
}
# workload: (share of the training step, items per step, unit, FLOP/item, bytes/item)
WORKLOADS = {
    "imaging-train": (1.0, 2, "patch", 2.2e12, 9.0e9),
    "imaging-infer": (0.3, 2, "patch", 0.7e12, 3.0e9),
    "llm-train": (2.0, 4096, "token", 2.0e9, 6.0e6),
    "llm-prefill": (0.6, 4096, "token", 0.7e9, 1.5e6),
    "llm-decode": (0.1, 8, "token", 0.6e9, 1.2e9),
}


def configuration(
    workload: str, device: str, *, batch: int = 2, speed: float = 1.0, num: int = 5, **cells: Value
) -> list[Row]:
    """Trials of one workload on one device, `speed` times as fast as usual."""
    train_ms, roof_flops_per_s, roof_bytes_per_s, power_w = DEVICES[device]
    share, per_step, unit, flops, traffic = WORKLOADS[workload]
    step_ms = train_ms * share * (0.6 + 0.2 * batch) / speed
    phase_hash = f"{workload}-{batch}-{cells.get('link')}-{cells.get('device_count')}"
    is_cpu = "processor" in device
    facts: Row = {
        "workload": workload,
        "config_hash": f"{zlib.crc32(phase_hash.encode()):08x}",
        "params_json": json.dumps({"batch": batch, "patch": 64}),
        "batch": batch,
        "items": 100 * per_step * batch // 2,
        "items_unit": unit,
        "device": "cpu" if is_cpu else "cuda:0",
        "device_type": "cpu" if is_cpu else "cuda",
        "device_name": device,
        "device_stack": "CPU" if is_cpu else "Stack 13.0",
        "energy_scope": "package" if is_cpu else "gpu",
        "flops_per_item": flops,
        "bytes_per_item": traffic,
        "roof_flops_per_s": roof_flops_per_s,
        "roof_bytes_per_s": roof_bytes_per_s,
        "mem_alloc_peak_bytes": int(4.2e9 * (1.0 + share)),
        "first_step_s": step_ms * 12e-3,
        "device_memory_bytes": 80 * 10**9,
        "energy_source": "counter",
        "lat_n": 700,
        "warmup_steps": 12,
        "warmup_s": 2.2,
        "warmup_converged": True,
        "build_s": 1.25,
        "import_s": 2.5,
        **cells,
    }
    rows = trials(step_ms=step_ms, num=num, seed=len(phase_hash) + batch, **facts)
    for row in rows:
        step, speed = float(str(row["step_median_ms"])), float(str(row["throughput_per_s"]))
        row |= {
            "step_p05_ms": step * 0.97,
            "step_p95_ms": step * 1.08,
            "step_mean_ms": step * 1.01,
            "lat_p50_ms": step,
            "lat_p90_ms": step * 1.06,
            "lat_p99_ms": step * 1.3,
            "achieved_flops_per_s": flops * speed,
            "roof_frac": flops * speed / roof_flops_per_s,
            "power_mean_w": power_w,
            "idle_power_w": power_w * 0.2,
            "energy_per_item_j": power_w / speed,
        }
    return rows


def full_rows(*, speed: float = 1.0, run_id: str = "run1") -> list[Row]:
    """Every workload on every device, with a sweep over batch, links and modes, and failures."""
    rows = [
        row
        for device in DEVICES
        for workload in WORKLOADS
        for batch in (2, 4)
        for row in configuration(workload, device, batch=batch, speed=speed)
    ]
    card = "Accelerator 80 GB"
    links = {"h100-nvlink": 1.0, "h800-nvlink": 1.05, "pcie4": 1.3, "25gbe": 2.4}
    for link, slowness in links.items():
        ddp: Row = {"link": link, "parallel": "ddp", "mode": "emulated"}
        for count in (2, 4, 8):
            faster = speed * count / (1.0 + (slowness - 1.0) * count / 4)
            rows += configuration("imaging-train", card, speed=faster, device_count=count, **ddp)
    for count in (1, 2, 4):
        fsdp: Row = {"device_count": count, "parallel": "fsdp" if count > 1 else None}
        rows += configuration("llm-train", card, speed=speed * count * 0.93, **fsdp)
    rows[3] |= {"status": "WARN", "reasons": "foreign_cpu;drift", "detail": "load 3.1 on 2 cores"}
    rows[11] |= {"status": "INVALID", "reasons": "thermal_throttle"}
    rows += failed_rows()
    return [{**row, "run_id": run_id} for row in rows]


def failed_rows() -> list[Row]:
    """A configuration of which no trial worked."""
    failed: Row = {"status": "FAILED", "reasons": "out_of_memory", "config_hash": "bad",
                   "detail": "tried to allocate 20.00 GiB", "throughput_per_s": None,
                   "step_median_ms": None, "window_s": None}  # fmt: skip
    where: Row = {"device": "cuda:0", "device_type": "cuda", "device_name": "Graphics card 24 GB"}
    params = '{"batch": 512, "patch": 64}'
    return trials(num=2, workload="llm-train", params_json=params, batch=512, **failed, **where)


HOSTILE = (
    "<script>document.body.dataset.broken=1</script>",
    "\"'><img src=x onerror=alert(1)>",
    "=cmd()|' /C calc'!A0",
    "$\\frac{1}{0}$ --> ]]> </svg></style>",
    "昇腾 910B — 加速器",
)


def hostile_rows() -> list[Row]:
    """Text that would do harm in a spreadsheet, a page, a picture or a formula."""
    columns = ("workload_version", "link", "detail", "git_commit", "size", "run_id")
    rows = []
    for number, text in enumerate(HOSTILE):
        cells: Row = dict.fromkeys(columns, text)
        cells |= {"dtype": text[:30], "reasons": text.replace(";", ","), "mode": "emulated"}
        for row in configuration("imaging-train", "Graphics card 24 GB", num=2, **cells):
            named = {"device_name": text, "workload": f"{text}-train", "trial": number}
            rows.append({**row, **named})
    return rows


def many_rows(num_configurations: int) -> Iterator[Row]:
    """Configurations over workloads, devices and batches, five trials each."""
    names = [(workload, device) for workload in WORKLOADS for device in DEVICES]
    for number in range(num_configurations):
        workload, device = names[number % len(names)]
        batch = 2 * (1 + number // len(names))
        yield from configuration(workload, device, batch=batch, config_hash=f"{number:08x}")


def write_run(path: Path, rows: list[Row], *, steps: int = 0) -> Path:
    """Result file with its sidecars; `steps` measured steps of samples per usable trial."""
    write_csv(path, rows)
    write_sidecar(
        path,
        Sidecar(
            run_id=str(rows[0]["run_id"]) if rows else "none",
            started_utc="2026-01-02T03:04:05Z",
            environment={"cpu": {"model": "Test CPU", "cores": 2}, "variables": {}, "torch": None},
            request={"profile": "default", "workloads": ["imaging", "llm"], "is_smoke": False},
        ),
    )
    for row in rows:
        if steps and row["status"] in ("OK", "WARN") and row.get("step_median_ms"):
            append_samples(samples_path(path), _samples(row, steps=steps))
    return path


def _samples(row: Row, *, steps: int) -> dict[str, object]:
    step_s = float(str(row["step_median_ms"])) * 1e-3
    wave = [step_s * (1.0 + 0.02 * ((7 * i) % 11 - 5) / 5) for i in range(steps)]
    wave[steps // 3] *= 3.0  # a stall, which must stay visible
    return {
        **{name: row[name] for name in ("config_hash", "device", "trial", "attempt")},
        "warmup_step_s": [step_s * 12.0, step_s * 1.4, *[step_s * 1.05] * 10],
        "step_s": wave,
    }

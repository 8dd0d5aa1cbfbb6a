"""Measures the real link between devices: from flags to points, and from points to a link file.

Rate and latency are fitted over all operations and sizes at once, for groups that were not
measured; the file carries the points themselves, which count where they apply.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from bench.core.errors import MeasurementError, UsageError
from bench.core.statistics import median
from bench.devices.host import cpu
from bench.hardware.costs.collectives import Op
from bench.hardware.costs.formulas import num_steps, transfer_factor
from bench.hardware.links.curves import Point
from bench.hardware.links.topology import LinkFile
from bench.measure.asking import ask
from bench.measure.messages import Answer, Devices, LinkPoint, LinkRequest, LinkResult, Stage
from bench.run.launching.child import run_child
from bench.run.launching.launch import run_ranks
from bench.run.launching.torchrun import World

OPS: tuple[Op, ...]
OPS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast", "send")
LEAST_BYTES = 1024
REPETITIONS = 15
LEAST_ERROR_FRACTION = 0.05
"""What interpolating between measured sizes misses by, however steady the link:
`bench.hardware.links.curves`."""


@dataclass(frozen=True, kw_only=True)
class MeasuredLink:
    """All points of one link, the fit through them, and what they were measured with."""

    device: Devices
    num_ranks: int
    result: LinkResult
    bytes_per_s: float
    latency_s: float
    misfit_frac: float
    """Mean distance of the fit from the points, relative."""
    spread_frac: float
    """Half the distance of the quartiles over the median; the median over all points."""


def sizes_up_to(most_bytes: int) -> tuple[int, ...]:
    """Message sizes, each four times the last, that end at the largest."""
    count = max(1, int(math.log(max(most_bytes / LEAST_BYTES, 1), 4)) + 1)
    return tuple(sorted(most_bytes // 4**step for step in range(count)))


def describe_device(label: str | None) -> Devices:
    """Ask a process of its own which device is meant and how many there are."""
    what = f"device {label or 'detection'} could not be inspected"
    return ask("bench.measure.ranks.link_probe", {"label": label}, kind=Devices, what=what)


def num_ranks_for(device: Devices, *, devices: int | None, world: World | None) -> int:
    """Return how many ranks to measure between; `UsageError` where there are not two."""
    label, count = device.label, device.count
    if world is not None:
        return world.num_ranks
    if label == "cpu" and devices is not None and devices >= 2:
        return devices
    if label == "cpu" or count < 2:
        here = "here is one CPU" if label == "cpu" else f"{label} is the only one here"
        raise UsageError(
            f"a link needs two devices and {here}; start torchrun on two machines, or use "
            "--devices 2 --device cpu for two gloo ranks over the loopback"
        )
    if devices is not None and not 2 <= devices <= count:
        raise UsageError(f"--devices {devices} must be from 2 to {count}, the devices here")
    return devices or count


def measure_link(
    device: Devices,
    *,
    num_ranks: int,
    num_local_ranks: int,
    ops: Sequence[Op],
    most_bytes: int | None,
    timeout_s: float,
    note: Callable[[str], None],
) -> MeasuredLink:
    """Measure; raises `MeasurementError` with the first rank's failure."""
    # On a CPU a second each, elsewhere past the ramp.
    most_bytes = most_bytes or (16 if device.label == "cpu" else 512) * 2**20
    request = LinkRequest(
        device=device.label,
        ops=tuple(ops),
        sizes=sizes_up_to(most_bytes),
        repetitions=REPETITIONS,
    )

    def hear(message: Answer) -> None:
        if isinstance(message, Stage) and message.name in OPS:
            note(f"measuring {message.name} between {num_ranks} ranks")

    outcome = run_ranks(
        request,
        num_ranks=num_ranks,
        threads=max(1, cpu.usable_cores() // num_local_ranks),
        run=partial(run_child, timeout_s=timeout_s, on_message=hear),
    )
    result = outcome.result
    if not isinstance(result, LinkResult):
        raise MeasurementError(f"the link could not be measured: {outcome.detail}")
    if not result.points:
        missing = "; ".join(f"{op}: {words}" for op, words in result.missing.items())
        raise MeasurementError(f"the backend has none of these operations ({missing})")
    bytes_per_s, latency_s, misfit_frac = fit(result.points)
    return MeasuredLink(
        device=device,
        num_ranks=num_ranks,
        result=result,
        bytes_per_s=bytes_per_s,
        latency_s=latency_s,
        misfit_frac=misfit_frac,
        spread_frac=median([point.iqr_s / 2 / point.median_s for point in result.points]),
    )


def fit(points: Sequence[LinkPoint]) -> tuple[float, float, float]:
    """Return rate, latency of a step, and mean relative misfit, of a ring through the points.

    Time is steps x latency + bytes sent / rate: linear in latency and in 1/rate. Least squares of
    the relative error, so that small messages count as much as large ones.
    """
    import numpy as np

    shares = [
        (
            num_steps(point.op, num_ranks=point.num_ranks, algorithm="ring") / point.median_s,
            transfer_factor(point.op, num_ranks=point.num_ranks) * point.num_bytes / point.median_s,
        )
        for point in points
    ]
    rows, ones = np.array(shares), np.ones(len(shares))
    (latency_s, per_byte_s), _, rank, _ = np.linalg.lstsq(rows, ones)
    # One size alone, or noise, can want a negative one: then the other carries all.
    if rank < 2 or latency_s <= 0:
        latency_s, per_byte_s = 0.0, np.linalg.lstsq(rows[:, 1:], ones)[0][0]
    elif per_byte_s <= 0:
        latency_s, per_byte_s = np.linalg.lstsq(rows[:, :1], ones)[0][0], 1e-15
    misfits = np.abs(rows @ (latency_s, per_byte_s) - 1)
    return float(1 / per_byte_s), float(latency_s), float(misfits.mean())


def write(measured: MeasuredLink, path: Path) -> None:
    """Write the link file; `UsageError` where it cannot be written."""
    device = f"{measured.num_ranks} x {measured.device.name}"
    provenance = {
        "measured_utc": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "device": device,
        "backend": measured.result.backend,
        "method": f"bench measure-link, median of {REPETITIONS}, slowest rank, fp32",
        "misfit": f"{measured.misfit_frac:.1%} between the points and the fitted ring",
    }
    curve = tuple(
        Point(
            op=one.op, num_ranks=one.num_ranks, message_bytes=one.num_bytes, latency_s=one.median_s
        )
        for one in measured.result.points
    )
    link = LinkFile(
        name=f"measured: {device}",
        bytes_per_s=measured.bytes_per_s,
        latency_s=measured.latency_s,
        error_fraction=max(LEAST_ERROR_FRACTION, measured.spread_frac),
        provenance=provenance,
        curve=curve,
    )
    try:
        link.write(path)
    except OSError as error:
        raise UsageError(f"--out {path} could not be written: {error.strerror}") from error

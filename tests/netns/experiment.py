"""Real gloo ranks over a shaped link against emulated and throttled ones; what is fitted on what.

The link's alpha and beta come from all-reduces alone; the processor's tax (gloo and TCP burn the
core that also computes) from one training point, which is then not scored. Modes take turns within
each round, so that what the machine does meanwhile falls on all of them.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.netns.shaped import ShapedPair

RATES_BITS_PER_S = (0.2e9, 0.5e9, 1e9, 2e9)
WORKLOADS = ("imaging", "llm")
BUCKETS_BYTES = (64 * 2**10, 256 * 2**10, 25 * 2**20)
SIZES_BYTES = (16_384, 65_536, 262_144, 1_048_576)
LEAST_ALPHA_S = 1e-6
"""A link without any latency is refused; where bursts hide it, it is next to nothing."""
FITTED_POINT = (0.5e9, "imaging", 256 * 2**10)
"""Where the processor's tax is fitted; left out of the score."""


class Ranks:
    """Two rank processes, one in each namespace, given the same orders."""

    def __init__(self, pair: ShapedPair) -> None:
        program = str(Path(__file__).with_name("rank.py"))
        self._pair = pair
        self._port = 29_500
        self._processes = [
            subprocess.Popen(
                pair.command(index, sys.executable, program),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "RANK": str(index), "OMP_NUM_THREADS": "1"},
            )
            for index in range(2)
        ]

    def order(self, **order: Any) -> list[dict[str, Any]]:
        """Give both ranks an order and return both answers; a rank that dies raises."""
        self._port += 1
        order |= {
            "address": self._pair.addresses[0],
            "port": self._port,
            "interface": self._pair.interface,
        }
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
        answers = []
        for process in self._processes:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"a rank died at {order}")
            answers.append(json.loads(line))
        return answers

    def close(self) -> None:
        """End both processes."""
        for process in self._processes:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                assert stream is not None
                stream.close()


@contextmanager
def rank_processes(pair: ShapedPair) -> Iterator[Ranks]:
    """Start two ranks and end them whatever happens."""
    ranks = Ranks(pair)
    try:
        yield ranks
    finally:
        ranks.close()


def fit_line(times_s: dict[int, float]) -> tuple[float, float]:
    """Return (alpha, bytes per second) of two ranks' ring all-reduce, 2 alpha + S / B.

    Least squares on relative errors, so that small messages count as much as large ones.
    """
    sizes = list(times_s)
    weights = [1 / times_s[size] ** 2 for size in sizes]
    total = sum(weights)
    mean_size = sum(w * s for w, s in zip(weights, sizes, strict=True)) / total
    mean_time = sum(w * times_s[s] for w, s in zip(weights, sizes, strict=True)) / total
    covariance = sum(
        w * (s - mean_size) * (times_s[s] - mean_time) for w, s in zip(weights, sizes, strict=True)
    )
    variance = sum(w * (s - mean_size) ** 2 for w, s in zip(weights, sizes, strict=True))
    slope = covariance / variance
    return max(LEAST_ALPHA_S, (mean_time - slope * mean_size) / 2), 1 / slope


@dataclass(kw_only=True)
class Point:
    """One rate, workload and bucket: medians of all steps of all rounds."""

    bits_per_s: float
    workload: str
    bucket_bytes: int
    gradient_bytes: int
    real_s: float
    alone_s: float
    """A step without any group, both cores at work."""
    emulated_s: float
    """Without the tax."""
    taxed_s: float
    throttled_s: float

    link_s: float
    """What the fitted link alone takes for the gradients."""

    @property
    def is_dominated(self) -> bool:
        """Whether the link takes longer than compute."""
        return self.link_s > self.alone_s

    @property
    def is_fitted(self) -> bool:
        """Whether the tax was fitted here."""
        return (self.bits_per_s, self.workload, self.bucket_bytes) == FITTED_POINT

    def error(self, mode: str) -> float:
        """Relative error of a mode's step against the real one."""
        return float(getattr(self, f"{mode}_s")) / self.real_s - 1


@dataclass(kw_only=True)
class Found:
    """All that the experiment measured."""

    points: list[Point]
    links: dict[float, tuple[float, float]]
    """(alpha seconds, bytes per second) by shaped rate."""
    tax: float
    congestion_control: str


def measure(pair: ShapedPair, ranks: Ranks, *, rounds: int, steps: int) -> Found:
    """Run the whole experiment."""
    from tests.netns.shaped import congestion_control

    links = {rate: _fit_link(pair, ranks, rate) for rate in RATES_BITS_PER_S}
    tax = _fit_tax(pair, ranks, links, rounds=rounds, steps=steps)
    points = [
        _point(pair, ranks, links, key, tax=tax, rounds=rounds, steps=steps)
        for key in (
            (rate, workload, bucket)
            for rate in RATES_BITS_PER_S
            for workload in WORKLOADS
            for bucket in BUCKETS_BYTES
        )
    ]
    return Found(points=points, links=links, tax=tax, congestion_control=congestion_control(pair))


def _fit_link(pair: ShapedPair, ranks: Ranks, rate: float) -> tuple[float, float]:
    pair.shape(rate)
    answers = ranks.order(do="collectives", mode="real", sizes_bytes=SIZES_BYTES, repeats=9)
    slowest = {
        size: max(answer["median_s"][str(size)] for answer in answers) for size in SIZES_BYTES
    }
    return fit_line(slowest)


def link_text(link: tuple[float, float]) -> str:
    """Write a fitted link as --link takes it."""
    alpha_s, bytes_per_s = link
    return f"bw={bytes_per_s / 1e6:.6f}MB/s,latency={alpha_s * 1e6:.3f}us"


Key = tuple[float, str, int]
Links = dict[float, tuple[float, float]]


def _steps(
    pair: ShapedPair, ranks: Ranks, links: Links, key: Key, *, mode: str, steps: int, tax: float
) -> tuple[list[float], int]:
    """Steps of rank 0 in one mode; the real mode is the only one that the shaping touches."""
    rate, workload, bucket_bytes = key
    pair.shape(rate) if mode == "real" else pair.unshape()
    order: dict[str, Any] = {"do": "steps", "mode": mode, "workload": workload}
    order |= {"bucket_bytes": bucket_bytes, "warmup": 4, "steps": steps}
    if mode in ("emulated", "throttled"):
        order |= {"link": link_text(links[rate]), "cpu_tax": tax}
    answers = ranks.order(**order)
    return answers[0]["step_s"], answers[0]["gradient_bytes"]


def _fit_tax(pair: ShapedPair, ranks: Ranks, links: Links, *, rounds: int, steps: int) -> float:
    """Copies of each byte that make the emulated step as long as the real one, at one point."""
    trial_tax = 8.0
    real_s, bare_s, taxed_s = [], [], []
    for _ in range(rounds):
        for mode, tax, into in (
            ("real", 0.0, real_s),
            ("emulated", 0.0, bare_s),
            ("emulated", trial_tax, taxed_s),
        ):
            into += _steps(pair, ranks, links, FITTED_POINT, mode=mode, steps=steps, tax=tax)[0]
    real, bare, taxed = (statistics.median(one) for one in (real_s, bare_s, taxed_s))
    if taxed <= bare:
        return 0.0
    return max(0.0, (real - bare) / (taxed - bare) * trial_tax)


def _point(
    pair: ShapedPair,
    ranks: Ranks,
    links: Links,
    key: Key,
    *,
    tax: float,
    rounds: int,
    steps: int,
) -> Point:
    times_s: dict[str, list[float]] = {}
    gradient_bytes = 0
    arms = (
        ("real", "real", 0.0),
        ("alone", "alone", 0.0),
        ("emulated", "emulated", 0.0),
        ("taxed", "emulated", tax),
        ("throttled", "throttled", 0.0),
    )
    for _ in range(rounds):
        for name, mode, arm_tax in arms:
            step_s, gradient_bytes = _steps(
                pair, ranks, links, key, mode=mode, steps=steps, tax=arm_tax
            )
            times_s.setdefault(name, []).extend(step_s)
    rate, workload, bucket_bytes = key
    return Point(
        bits_per_s=rate,
        workload=workload,
        bucket_bytes=bucket_bytes,
        gradient_bytes=gradient_bytes,
        link_s=gradient_bytes / links[rate][1],
        **{f"{name}_s": statistics.median(values) for name, values in times_s.items()},
    )


def median_error(points: Sequence[Point], *, mode: str) -> float | None:
    """Median of the absolute relative errors; None of no points."""
    errors = [abs(point.error(mode)) for point in points]
    return statistics.median(errors) if errors else None

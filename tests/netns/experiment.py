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
SIZES_BYTES = (65_536, 131_072, 262_144, 524_288, 1_048_576)
"""Of all-reduces; larger than the bucket filter's burst, which would hide the link."""
FIT_ROUNDS = 5
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
    """One rate, workload and bucket."""

    bits_per_s: float
    workload: str
    bucket_bytes: int
    gradient_bytes: int
    link_s: float
    """What the fitted link alone takes for the gradients."""
    rounds: dict[str, list[float]]
    """Median step of each round, by arm: real, alone (no group, both cores at work), emulated
    (without the tax), taxed, throttled."""

    def step_s(self, arm: str) -> float:
        """Median over the rounds."""
        return statistics.median(self.rounds[arm])

    @property
    def is_dominated(self) -> bool:
        """Whether the link takes longer than compute."""
        return self.link_s > self.step_s("alone")

    @property
    def is_fitted(self) -> bool:
        """Whether the tax was fitted here."""
        return (self.bits_per_s, self.workload, self.bucket_bytes) == FITTED_POINT

    def error(self, mode: str) -> float:
        """Relative error against the real step of the same round, median over the rounds."""
        pairs = zip(self.rounds[mode], self.rounds["real"], strict=True)
        return statistics.median(modelled / real for modelled, real in pairs) - 1


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
    found: dict[int, list[float]] = {size: [] for size in SIZES_BYTES}
    for _ in range(FIT_ROUNDS):
        answers = ranks.order(do="collectives", mode="real", sizes_bytes=SIZES_BYTES, repeats=9)
        for size in SIZES_BYTES:
            found[size].append(max(answer["median_s"][str(size)] for answer in answers))
    return fit_line({size: statistics.median(times_s) for size, times_s in found.items()})


def link_text(link: tuple[float, float]) -> str:
    """Write a fitted link as --link takes it."""
    alpha_s, bytes_per_s = link
    return f"bw={bytes_per_s / 1e6:.6f}MB/s,latency={alpha_s * 1e6:.3f}us"


Key = tuple[float, str, int]
Links = dict[float, tuple[float, float]]


def _steps(
    pair: ShapedPair, ranks: Ranks, links: Links, key: Key, *, mode: str, steps: int, tax: float
) -> tuple[list[float], int]:
    """Steps in one mode; the real mode is the only one that the shaping touches.

    A step is that of the slower rank: real ranks wait for each other in every step, emulated ones
    do not know of each other.
    """
    rate, workload, bucket_bytes = key
    pair.shape(rate) if mode == "real" else pair.unshape()
    order: dict[str, Any] = {"do": "steps", "mode": mode, "workload": workload}
    order |= {"bucket_bytes": bucket_bytes, "warmup": 4, "steps": steps}
    if mode in ("emulated", "throttled"):
        order |= {"link": link_text(links[rate]), "cpu_tax": tax}
    answers = ranks.order(**order)
    step_s = [max(both) for both in zip(*(one["step_s"] for one in answers), strict=True)]
    return step_s, answers[0]["gradient_bytes"]


def _fit_tax(pair: ShapedPair, ranks: Ranks, links: Links, *, rounds: int, steps: int) -> float:
    """Copies of each byte that make the emulated step as long as the real one, at one point."""
    trial_tax = 8.0
    real_s: list[float] = []
    bare_s: list[float] = []
    taxed_s: list[float] = []
    for _ in range(rounds):
        for mode, tax, into in (
            ("real", 0.0, real_s),
            ("emulated", 0.0, bare_s),
            ("emulated", trial_tax, taxed_s),
        ):
            key = FITTED_POINT
            step_s, _ = _steps(pair, ranks, links, key, mode=mode, steps=steps, tax=tax)
            into.append(statistics.median(step_s))
    found = [
        (real - bare) / (taxed - bare) * trial_tax
        for real, bare, taxed in zip(real_s, bare_s, taxed_s, strict=True)
        if taxed > bare
    ]
    return max(0.0, statistics.median(found)) if found else 0.0


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
    medians_s: dict[str, list[float]] = {}
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
            medians_s.setdefault(name, []).append(statistics.median(step_s))
    rate, workload, bucket_bytes = key
    return Point(
        bits_per_s=rate,
        workload=workload,
        bucket_bytes=bucket_bytes,
        gradient_bytes=gradient_bytes,
        link_s=gradient_bytes / links[rate][1],
        rounds=medians_s,
    )


def median_error(points: Sequence[Point], *, mode: str) -> float | None:
    """Median of the absolute relative errors; None of no points."""
    errors = [abs(point.error(mode)) for point in points]
    return statistics.median(errors) if errors else None

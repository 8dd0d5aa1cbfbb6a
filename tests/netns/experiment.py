"""Real gloo ranks over a shaped link against emulated and throttled ones.

The link's alpha and beta come from all-reduces alone: nothing is fitted on a step. Modes take turns
within each round, so that what the machine does meanwhile falls on all of them.

The link is a veth pair between two network namespaces, its rate set with tc's token bucket filter.
Needs root, `ip` and `tc`. Everything made here is named after the process and removed at the end.
Latency is not shaped: netem is not to be counted on in containers' kernels.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.netns.two_ranks import ADDRESSES, INTERFACE

RATES_BITS_PER_S = (0.1e9, 0.2e9, 0.5e9, 1e9)
WORKLOADS = ("imaging", "llm")
BUCKETS_BYTES = (64 * 2**10, 256 * 2**10, 25 * 2**20)
SIZES_BYTES = (65_536, 131_072, 262_144, 524_288, 1_048_576)
"""Of all-reduces; larger than the bucket filter's burst, which would hide the link."""
FIT_ROUNDS = 5
LEAST_ALPHA_S = 1e-6
"""A link without any latency is refused; where bursts hide it, it is next to nothing."""
BURST_BYTES = 8192
"""Of the bucket filter. A bucket fills again while ranks compute, and sends so much for nothing:
with 64 kB a step over 0.1 Gb/s was 12 % shorter than the link allows, with 8 kB none."""


def missing() -> str | None:
    """Say why namespaces cannot be made here; None when they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for tool in ("ip", "tc", "taskset"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    if (os.cpu_count() or 1) < 2:
        return "two ranks need a core each"
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    except OSError as error:
        return f"threads cannot be given real-time priority: {error.strerror}"
    name = f"gapbench-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode:
        return f"a network namespace cannot be made: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], check=True)
    return None


@dataclass(frozen=True)
class ShapedPair:
    """Namespaces 0 and 1, each with one end of the pair."""

    names: tuple[str, str]

    def shape(self, bits_per_s: float) -> None:
        """Limit both directions, with bursts shorter than the messages that are measured."""
        for name in self.names:
            run(
                "ip", "netns", "exec", name,
                "tc", "qdisc", "replace", "dev", INTERFACE, "root", "tbf",
                "rate", f"{bits_per_s:.0f}bit", "burst", str(BURST_BYTES), "latency", "100ms",
            )  # fmt: skip

    def unshape(self) -> None:
        """Let the pair run as fast as it can."""
        for name in self.names:
            subprocess.run(
                ["ip", "netns", "exec", name, "tc", "qdisc", "del", "dev", INTERFACE, "root"],
                capture_output=True,
                timeout=30,
            )

    def command(self, index: int, *arguments: str) -> list[str]:
        """Return the command line that runs in a namespace, on a core of its own."""
        return ["ip", "netns", "exec", self.names[index], "taskset", "-c", str(index), *arguments]


def run(*arguments: str) -> str:
    done = subprocess.run(arguments, check=True, capture_output=True, text=True, timeout=30)
    return done.stdout


@contextmanager
def shaped_pair() -> Iterator[ShapedPair]:
    """Make the pair, unshaped, and remove it whatever happens."""
    names = (f"gapbench-{os.getpid()}-0", f"gapbench-{os.getpid()}-1")
    pair = ShapedPair(names)
    try:
        for name in names:
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
            set_tcp(name)
        run(
            "ip", "-n", names[0], "link", "add", INTERFACE,
            "type", "veth", "peer", "name", INTERFACE, "netns", names[1],
        )  # fmt: skip
        for name, address in zip(names, ADDRESSES, strict=True):
            run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", INTERFACE)
            run("ip", "-n", name, "link", "set", INTERFACE, "up")
        yield pair
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, timeout=30)


def set_tcp(namespace: str) -> None:
    """Take the plain congestion control, which fills a link; bbr leaves parts of it idle to probe.

    Idle connections do not start slowly again: a step's pause is no new path.
    """
    settings = {"tcp_congestion_control": "reno", "tcp_slow_start_after_idle": "0"}
    for name, value in settings.items():
        write = f"echo {value} > /proc/sys/net/ipv4/{name}"
        run("ip", "netns", "exec", namespace, "sh", "-c", write)


Order = Callable[..., list[dict[str, Any]]]


@contextmanager
def rank_processes(pair: ShapedPair) -> Iterator[Order]:
    """Start a rank in each namespace; yield what gives both an order and returns both answers.

    A rank that dies raises; both are ended whatever happens.
    """
    program = str(Path(__file__).with_name("rank.py"))
    ports = itertools.count(29_501)
    processes = [
        subprocess.Popen(
            pair.command(index, sys.executable, program),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "RANK": str(index), "OMP_NUM_THREADS": "1"},
        )
        for index in range(2)
    ]

    def order(**order: Any) -> list[dict[str, Any]]:
        order |= {"address": ADDRESSES[0], "port": next(ports), "interface": INTERFACE}
        for process in processes:
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
        answers = [process.stdout.readline() for process in processes]
        if not all(answers):
            raise RuntimeError(f"a rank died at {order}")
        return [json.loads(line) for line in answers]

    try:
        yield order
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def fit_line(times_s: dict[int, float]) -> tuple[float, float]:
    """Return (alpha, bytes per second) of two ranks' ring all-reduce, 2 alpha + S / B.

    Least squares on relative errors, so that small messages count as much as large ones.
    """
    sizes, seconds = np.array(list(times_s)), np.array(list(times_s.values()))
    slope, twice_alpha_s = np.polyfit(sizes, seconds, 1, w=1 / seconds)
    return max(LEAST_ALPHA_S, float(twice_alpha_s) / 2), 1 / float(slope)


def link_text(fitted: tuple[float, float]) -> str:
    """Write a fitted (alpha seconds, bytes per second) as `--link` takes it."""
    alpha_s, bytes_per_s = fitted
    return f"bw={bytes_per_s / 1e6:.6f}MB/s,latency={alpha_s * 1e6:.3f}us"


@dataclass(kw_only=True)
class Point:
    """One rate, workload and bucket."""

    bits_per_s: float
    workload: str
    bucket_bytes: int
    link_s: float
    """What the fitted link alone takes for the gradients."""
    rounds: dict[str, list[float]]
    """Median step of each round, by arm: real, alone (no group, both cores at work), emulated,
    throttled."""

    def step_s(self, arm: str) -> float:
        """Median over the rounds."""
        return statistics.median(self.rounds[arm])

    @property
    def is_dominated(self) -> bool:
        """Whether the link takes longer than compute."""
        return self.link_s > self.step_s("alone")

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
    congestion_control: str


Key = tuple[float, str, int]


@dataclass(kw_only=True)
class Experiment:
    """Both ranks, taking orders, over the pair; `rounds` of so many `steps` at each point."""

    pair: ShapedPair
    order: Order
    rounds: int
    steps: int
    links: dict[float, tuple[float, float]] = field(default_factory=dict)

    def measure(self) -> Found:
        """Run the whole of it."""
        self.links = {rate: self.fit_link(rate) for rate in RATES_BITS_PER_S}
        keys = itertools.product(RATES_BITS_PER_S, WORKLOADS, BUCKETS_BYTES)
        points = [self._point(key) for key in keys]
        path = "/proc/sys/net/ipv4/tcp_congestion_control"
        control = run("ip", "netns", "exec", self.pair.names[0], "cat", path).strip()
        return Found(points=points, links=self.links, congestion_control=control)

    def fit_link(self, rate: float) -> tuple[float, float]:
        """Return (alpha seconds, bytes per second) of the pair at this rate."""
        self.pair.shape(rate)
        found: dict[int, list[float]] = {size: [] for size in SIZES_BYTES}
        order: dict[str, Any] = {"do": "collectives", "mode": "real", "repeats": 9}
        for _ in range(FIT_ROUNDS):
            answers = self.order(**order, sizes_bytes=SIZES_BYTES)
            for size in SIZES_BYTES:
                found[size].append(max(answer["median_s"][str(size)] for answer in answers))
        return fit_line({size: statistics.median(times_s) for size, times_s in found.items()})

    def _step(self, key: Key, *, mode: str) -> tuple[float, int]:
        """Median step in one mode, and gradient bytes; shaping touches the real mode alone.

        A step is that of the slower rank: real ranks wait for each other in every step, emulated
        ones do not know of each other.
        """
        rate, workload, bucket_bytes = key
        self.pair.shape(rate) if mode == "real" else self.pair.unshape()
        order: dict[str, Any] = {"do": "steps", "mode": mode, "workload": workload}
        order |= {"bucket_bytes": bucket_bytes, "warmup": 4, "steps": self.steps}
        if mode in ("emulated", "throttled"):
            order |= {"link": link_text(self.links[rate])}
        answers = self.order(**order)
        step_s = [max(both) for both in zip(*(one["step_s"] for one in answers), strict=True)]
        return statistics.median(step_s), answers[0]["gradient_bytes"]

    def _point(self, key: Key) -> Point:
        medians_s: dict[str, list[float]] = {}
        gradient_bytes = 0
        for _ in range(self.rounds):
            for mode in ("real", "alone", "emulated", "throttled"):
                step_s, gradient_bytes = self._step(key, mode=mode)
                medians_s.setdefault(mode, []).append(step_s)
        rate, workload, bucket_bytes = key
        return Point(
            bits_per_s=rate,
            workload=workload,
            bucket_bytes=bucket_bytes,
            link_s=gradient_bytes / self.links[rate][1],
            rounds=medians_s,
        )


def median_error(points: Sequence[Point], *, mode: str) -> float | None:
    """Median of the absolute relative errors; None of no points."""
    errors = [abs(point.error(mode)) for point in points]
    return statistics.median(errors) if errors else None

"""Two network namespaces joined by a veth pair whose rate is set with tc's token bucket filter.

Needs root, `ip` and `tc`. Everything made here is named after the process and removed at the end.
Latency is not shaped: netem is not to be counted on in containers' kernels.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

NETWORK = "10.231.77"


def missing() -> str | None:
    """Say why namespaces cannot be made here; None when they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for tool in ("ip", "tc", "taskset"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    if (os.cpu_count() or 1) < 2:
        return "two ranks need a core each"
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
    addresses: tuple[str, str] = (f"{NETWORK}.1", f"{NETWORK}.2")
    interface: str = "gb0"

    def shape(self, bits_per_s: float) -> None:
        """Limit both directions, with bursts shorter than the messages that are measured."""
        burst_bytes = 32_768
        for name in self.names:
            run(
                "ip", "netns", "exec", name,
                "tc", "qdisc", "replace", "dev", self.interface, "root", "tbf",
                "rate", f"{bits_per_s:.0f}bit", "burst", str(burst_bytes), "latency", "100ms",
            )  # fmt: skip

    def unshape(self) -> None:
        """Let the pair run as fast as it can."""
        for name in self.names:
            subprocess.run(
                ["ip", "netns", "exec", name, "tc", "qdisc", "del", "dev", self.interface, "root"],
                capture_output=True,
                timeout=30,
            )

    def command(self, index: int, *arguments: str) -> list[str]:
        """Return the command line that runs in a namespace, on a core of its own."""
        return ["ip", "netns", "exec", self.names[index], "taskset", "-c", str(index), *arguments]


def run(*arguments: str) -> str:
    done = subprocess.run(arguments, check=True, capture_output=True, text=True, timeout=30)
    return done.stdout


def congestion_control(pair: ShapedPair) -> str:
    """TCP's congestion control inside the namespaces: it is part of the result."""
    path = "/proc/sys/net/ipv4/tcp_congestion_control"
    return run("ip", "netns", "exec", pair.names[0], "cat", path).strip()


@contextmanager
def shaped_pair() -> Iterator[ShapedPair]:
    """Make the pair, unshaped, and remove it whatever happens."""
    names = (f"gapbench-{os.getpid()}-0", f"gapbench-{os.getpid()}-1")
    pair = ShapedPair(names)
    try:
        for name in names:
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        run(
            "ip", "-n", names[0], "link", "add", pair.interface,
            "type", "veth", "peer", "name", pair.interface, "netns", names[1],
        )  # fmt: skip
        for name, address in zip(names, pair.addresses, strict=True):
            run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", pair.interface)
            run("ip", "-n", name, "link", "set", pair.interface, "up")
        yield pair
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, timeout=30)

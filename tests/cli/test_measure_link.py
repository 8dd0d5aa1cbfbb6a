"""`bench measure-link`: real ranks on the loopback, the fit, the file that --link accepts."""

import sys
from pathlib import Path
from typing import Any

import pytest

from bench.core.errors import UsageError
from bench.hardware.costs.collectives import Group
from bench.hardware.costs.cost import CostModel
from bench.hardware.costs.formulas import num_steps, transfer_factor
from bench.hardware.links.topology import parse_topology
from bench.measure.messages import Devices, LinkPoint
from bench.run import link_measure
from bench.run.launching.torchrun import World
from bench.run.link_measure import OPS, fit, num_ranks_for, sizes_up_to
from tests.cli.conftest import Ask


@pytest.mark.skipif(sys.platform == "win32", reason="ranks need named pipes")
@pytest.mark.timeout(120)
def test_every_operation_is_measured_and_the_file_is_a_link(
    tmp_path: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[link_measure.MeasuredLink] = []
    asked: list[object] = []
    measure_link = link_measure.measure_link

    def measured(*arguments: Any, **settings: Any) -> link_measure.MeasuredLink:
        asked.append(settings["ops"])
        found.append(found[-1] if found else measure_link(*arguments, **settings))
        return found[-1]

    monkeypatch.setattr(link_measure, "measure_link", measured)
    out = tmp_path / "link.yaml"
    arguments = ["measure-link", "--devices", "2", "--device", "cpu", "--max-size", "16KiB"]
    document = ask(*arguments, "--out", out, "--json").document
    assert (document["num_ranks"], document["backend"], document["missing"]) == (2, "gloo", {})
    points = document["points"]
    assert {point["op"] for point in points} == set(OPS)
    assert sorted({point["message_bytes"] for point in points}) == [1024, 4096, 16384]
    for point in points:
        factor = transfer_factor(point["op"], num_ranks=2)
        assert len(point["seconds"]) == 15
        assert min(point["seconds"]) <= point["latency_s"] <= max(point["seconds"])
        rate = factor * point["message_bytes"] / point["latency_s"]
        assert point["bus_bytes_per_s"] == pytest.approx(rate)

    topology = parse_topology(str(out))
    (point,) = [one for one in points if (one["op"], one["message_bytes"]) == ("all_reduce", 16384)]
    cost = CostModel(topology).cost("all_reduce", num_bytes=16384, group=Group(2))
    assert cost.method == "curve"
    # A slow outlier at a small size is cut down to the next larger one.
    assert cost.seconds == pytest.approx(point["latency_s"])
    assert cost.high_s > cost.seconds

    header, _, *lines = ask(*arguments, "--ops", "send,broadcast").out.splitlines()
    assert asked == [OPS, ("broadcast", "send")]
    assert header.split() == ["operation", "message", "median", "IQR", "bus", "bandwidth"]
    assert [line.split()[0] for line in lines[:-2]] == [op for op in OPS for _ in range(3)]
    assert "gloo" in lines[-1] and "fitted" in lines[-1]


def test_fit_finds_the_ring_that_made_the_points() -> None:
    latency_s, rate = 20e-6, 3e9
    points = [
        LinkPoint(
            op=op,
            num_ranks=2 if op == "send" else 4,
            num_bytes=num_bytes,
            seconds=(
                num_steps(op, num_ranks=4, algorithm="ring") * latency_s
                + transfer_factor(op, num_ranks=2 if op == "send" else 4) * num_bytes / rate,
            )
            * 3,
        )
        for op in OPS
        for num_bytes in sizes_up_to(2**24)
    ]
    bytes_per_s, step_s, misfit_frac = fit(points)
    assert (bytes_per_s, step_s) == (pytest.approx(rate), pytest.approx(latency_s))
    assert misfit_frac == pytest.approx(0, abs=1e-9)
    point = LinkPoint(op="send", num_ranks=2, num_bytes=1000, seconds=(1e-3, 1e-3, 1e-3))
    bytes_per_s, step_s, _ = fit([point])
    assert bytes_per_s == pytest.approx(1e6), "one size is all latency or all rate"
    assert step_s == 0.0


def test_sizes_end_at_the_largest_and_ranks_are_the_devices_here() -> None:
    assert sizes_up_to(1024) == (1024,)
    assert sizes_up_to(100_000) == (1562, 6250, 25_000, 100_000)
    gpus = Devices(label="cuda:0", name="one", count=4)
    assert num_ranks_for(gpus, devices=None, world=None) == 4
    assert num_ranks_for(gpus, devices=2, world=None) == 2
    with pytest.raises(UsageError, match="must be from 2 to 4"):
        num_ranks_for(gpus, devices=8, world=None)
    one = Devices(label="cuda:0", name="one", count=1)
    with pytest.raises(UsageError, match="cuda:0 is the only one here"):
        num_ranks_for(one, devices=None, world=None)
    world = World(rank=0, num_ranks=16, num_local_ranks=1)
    assert num_ranks_for(one, devices=None, world=world) == 16

"""Several devices and links as typed: what is refused, what it is planned as, what the rows say."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.cli import main
from bench.core.nouns import Layout
from bench.results.reader import read_rows
from bench.run.planning.layout_flags import make_layouts, settle_mode
from bench.run.planning.request import RunRequest, split_links

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a verb in this process."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(list(arguments))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


TRAIN = ("run", "--device", "fake", "-w", "imaging-train", "--size", "tiny")


def planned(call: Call, *arguments: str) -> list[dict[str, Any]]:
    code, out, err = call(*arguments, "--dry-run", "--json")
    assert code == 0, err
    return [one["config"] for one in json.loads(out)["planned"]]


def test_without_a_size_one_is_chosen_that_every_layout_of_the_sweep_divides(call: Call) -> None:
    for device in ("fake", "cpu"):
        configs = planned(
            *(call, "run", "-w", "llm-train", "--device", device, "--devices", "2,8"),
            *("--parallel", "tp", "--link", "h100-nvlink,h800-nvlink"),
        )
        assert len(configs) == 4
        assert len({config["size"] for config in configs}) == 1
        assert configs[0]["size"] != "tiny", "its two key/value heads are too few for eight devices"
        assert all(config["params"]["kv_heads"] % 8 == 0 for config in configs)


def test_a_world_that_only_a_size_too_large_for_a_cpu_divides_is_refused(call: Call) -> None:
    # Three ranks divide the 12 heads of base, and here its vocabulary.
    arguments = (
        *("run", "-w", "llm-train", "--device", "cpu", "--devices", "3", "--parallel", "tp"),
        *("--link", "ndr", "--set", "vocab=49152", "--set", "intermediate=1536", "--dry-run"),
    )
    code, out, _ = call(*arguments, "--size", "base")
    assert code == 0
    assert "size base" in out
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert "heads 8 of llm cannot be divided by 3 devices; possible here: 2 or 4" in err


def test_commas_inside_a_described_link_do_not_split_it() -> None:
    links = split_links(("h100-nvlink,bw=25GB/s,latency=5us,10gbe", "bw=1GB/s,latency=1ms"))
    assert links == ("h100-nvlink", "bw=25GB/s,latency=5us", "10gbe", "bw=1GB/s,latency=1ms")


def test_ranks_that_are_not_given_take_what_is_left() -> None:
    def layout(**flags: object) -> Layout:
        (found,) = make_layouts(RunRequest(**flags))  # type: ignore[arg-type]
        return found

    found = layout(devices=(8,), tp=4, links=("pcie4",))
    assert (found.strategy, found.data, found.tensor, found.pipeline) == ("tp", 2, 4, 1)
    found = layout(tp=4, dp=2, pp=2, links=("pcie4",))
    assert (found.strategy, found.devices, found.mode) == ("pp", 16, "simulated")
    assert layout(devices=(8,), parallel=("tp",), links=("pcie4",)).tensor == 8
    assert layout(devices=(8,), parallel=("fsdp",)).mode == "real"
    swept = make_layouts(RunRequest(devices=(1, 2), links=("pcie4", "ndr")))
    assert [one.is_single for one in swept] == [True, False, False]


def test_a_cpu_simulates_what_its_timer_cannot_keep() -> None:
    def settled(*, link: str, num: int = 10**6, is_accelerator: bool = False, **more: str) -> str:
        flags = RunRequest(devices=(2,), links=(link,), **more)  # type: ignore[arg-type]
        (found,) = make_layouts(flags)
        assert found.mode == "emulated"
        return settle_mode(
            found, flags, sweep=[], num_parameters=num, is_accelerator=is_accelerator
        ).mode

    assert settled(link="h100-nvlink") == "simulated"
    assert settled(link="h100-nvlink", is_accelerator=True) == "emulated"
    assert settled(link="h100-nvlink", mode="emulated") == "emulated"
    assert settled(link="10gbe", num=10**8) == "emulated"


def test_a_sweep_on_a_cpu_is_of_one_mode(call: Call) -> None:
    modes = {
        "10gbe,25gbe": "emulated",
        # Modes are never compared: the fast link takes the slow one along.
        "h100-nvlink,10gbe": "simulated",
        "infinite,10gbe": "emulated",
    }
    for links, mode in modes.items():
        configs = planned(
            *(call, "run", "--device", "cpu", "-w", "imaging-train", "--size", "small"),
            *("--devices", "1,8", "--link", links),
        )
        found = {(one["layout"]["data"], one["layout"]["mode"]) for one in configs}
        assert found == {(8, mode), (1, "real")}, links


def test_a_sweep_over_devices_and_links_says_what_each_row_is(call: Call, tmp_path: Path) -> None:
    link = "bw=1MB/s,latency=1ms"
    sweep = ("--devices", "1,2,64", "--link", f"{link},infinite", "--trials", "3")
    code, printed, err = call(*TRAIN, "--out", str(tmp_path), *sweep)
    assert code == 0, err
    assert "[simulated]" in printed and "fastest" in printed
    (path,) = tmp_path.glob("*.csv")
    rows = read_rows(path)
    singles = [row for row in rows if row["device_count"] == 1]
    assert len(singles) == 3
    assert all(row.get("link") is None and row.get("parallel") is None for row in singles)
    slow = [row for row in rows if row.get("link") == link and row["device_count"] == 2]
    assert len(slow) == 3
    for row in slow:
        assert (row["mode"], row["parallel"], row["layout"]) == ("simulated", "ddp", "dp2")
        # Two ranks' ring: 2 alpha + S / B.
        expected_ms = 2 * 1.0 + float(str(row["comm_bytes"])) / 1e6 * 1e3
        assert math.isclose(float(str(row["comm_total_ms"])), expected_ms, rel_tol=1e-3)
        step, compute = float(str(row["step_mean_ms"])), float(str(row["compute_step_ms"]))
        assert math.isclose(step - compute, float(str(row["comm_exposed_ms"])), rel_tol=0.02)
        assert float(str(row["step_low_ms"])) <= float(str(row["step_median_ms"])) * 1.001
        assert row.get("energy_per_item_j") is None
        assert row.get("loss_last") is None
    assert len({row["config_hash"] for row in rows}) == 5
    fast = [row for row in rows if row.get("link") == "infinite" and row["device_count"] == 64]
    speeds = (sum(float(str(row["throughput_per_s"])) for row in some) for some in (fast, singles))
    many, one = speeds
    assert math.isclose(many / one, 64.0, rel_tol=0.1), "every replica counts"


def test_gradient_accumulation_alone_is_still_one_device(call: Call) -> None:
    (config,) = planned(call, *TRAIN, "--grad-accum", "4")
    assert (config["layout"]["grad_accum"], config["layout"]["data"]) == (4, 1)

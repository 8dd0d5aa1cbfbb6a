"""Several devices and links: what is planned, what the rows say, what other verbs make of them."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.core.errors import UsageError
from bench.core.nouns import Device, Layout
from bench.measure.inspection import FAKE
from bench.results.beside_rows import read_samples
from bench.results.schema import Row, Value
from bench.results.store import samples_path
from bench.run.planning.layout_flags import make_layouts
from bench.run.planning.modes import choose_mode, is_sure, longest_s
from bench.run.planning.request import RunRequest, split_links
from tests.cli.conftest import Ask, Write
from tests.report.link_rows import link_run, real_run, three_links
from tests.run.bench_process import NET, only_file, rows_in

TRAIN = ("run", "--device", "fake", "-w", "imaging-train", "--size", "tiny")


def planned(ask: Ask, *words: str) -> list[dict[str, Any]]:
    return [one["config"] for one in ask(*words, "--dry-run", "--json").document["planned"]]


def test_without_a_size_one_is_chosen_that_every_layout_of_the_sweep_divides(ask: Ask) -> None:
    sweep = ("--devices", "2,8", "--parallel", "tp", "--link", "h100-nvlink,h800-nvlink")
    for device in ("fake", "cpu"):
        configs = planned(ask, "run", "-w", "llm-train", "--device", device, *sweep)
        assert len(configs) == 4
        assert len({config["size"] for config in configs}) == 1
        assert configs[0]["size"] != "tiny", "its two key/value heads are too few for eight devices"
        assert all(config["params"]["kv_heads"] % 8 == 0 for config in configs)


def test_flags_make_links_and_layouts() -> None:
    links = split_links(("h100-nvlink,bw=25GB/s,latency=5us,10gbe", "bw=1GB/s,latency=1ms"))
    assert links == ("h100-nvlink", "bw=25GB/s,latency=5us", "10gbe", "bw=1GB/s,latency=1ms")

    def layout(**flags: object) -> Layout:
        (found,) = make_layouts(RunRequest(**flags))  # type: ignore[arg-type]
        return found

    # Ranks that are not given take what is left.
    found = layout(devices=(8,), tp=4, links=("pcie4",))
    assert (found.strategy, found.data, found.tensor, found.pipeline) == ("tp", 2, 4, 1)
    found = layout(tp=4, dp=2, pp=2, links=("pcie4",))
    assert (found.strategy, found.devices, found.mode) == ("pp", 16, "simulated")
    assert layout(devices=(8,), parallel=("tp",), links=("pcie4",)).tensor == 8
    assert layout(devices=(8,), parallel=("fsdp",)).mode == "real"
    swept = make_layouts(RunRequest(devices=(1, 2), links=("pcie4", "ndr")))
    assert [one.is_single for one in swept] == [True, False, False]


CPU, GPU = (replace(FAKE, type=one, stack=stack) for one, stack in (("cpu", ""), ("cuda", "CUDA")))
ROCM = replace(GPU, stack="ROCm 7.1")


def sent(link: str, *, devices: int = 8, num: int = 10**8, **more: Any) -> tuple[Layout, int]:
    flags: dict[str, Any] = {"mode": "emulated", "strategy": "ddp", "data": devices, "link": link}
    return Layout(**(flags | more)), num


def test_a_sweep_is_emulated_where_the_timer_keeps_each_row_and_else_simulated() -> None:
    nvlink, slow = sent("h100-nvlink"), sent("10gbe")
    for sweep, device, mode in (
        ([slow], CPU, "emulated"),
        ([nvlink], CPU, "simulated"),
        ([slow, nvlink], CPU, "simulated"),
        ([slow, nvlink, sent("infinite")], GPU, "emulated"),
        ([slow, sent("infinite")], CPU, "emulated"),
        ([sent("10gbe", mitigate="bf16")], CPU, "emulated"),
        ([slow, sent("10gbe", mitigate="powersgd-2")], CPU, "simulated"),
        ([sent("wan-hub", mitigate="powersgd-2")], CPU, "emulated"),  # for its latency
        ([slow, sent("10gbe", mitigate="diloco-8+bf16")], CPU, "emulated"),
        ([slow, sent("10gbe", strategy="fsdp")], CPU, "simulated"),
        ([nvlink, sent("h100-nvlink", strategy="fsdp")], GPU, "emulated"),
        ([nvlink, sent("h100-nvlink", mitigate="powersgd-2")], GPU, "simulated"),
        ([sent("10gbe", data=1, tensor=8, strategy="tp")], CPU, "simulated"),
        ([sent("h100-nvlink", num=1000)], GPU, "simulated"),
        ([slow, sent("10gbe", strategy="pp", mode="simulated")], GPU, "simulated"),
        ([slow], ROCM, "simulated"),
    ):
        found, why = choose_mode(sweep, device=device)
        assert found == mode and "\n" not in why, (sweep, device)


def test_the_longest_message_is_known_as_far_as_arithmetic_goes() -> None:
    """Between two devices a mebibyte takes a millisecond here; 2**18 parameters are one."""
    for mebibytes, more, sure, most in (
        (0.5, {}, 0.5, 0.5),
        (1.5, {}, 1.0, 1.5),  # DDP closes its first bucket at a mebibyte
        (8.0, {}, 4.0, 8.0),
        (8.0, {"bucket_bytes": 2**20}, 1.0, 8.0),
        (80.0, {}, 12.5, 80.0),
        (8.0, {"mitigate": "bf16"}, 2.0, 4.0),
        (8.0, {"mitigate": "diloco-4+fp16"}, 4.0, 4.0),
        (8.0, {"mitigate": "powersgd-2"}, 0.0, 8.0),
        (8.0, {"strategy": "fsdp"}, 0.0, 8.0),
        (8.0, {"strategy": "tp", "tensor": 2, "data": 1}, 0.0, None),
    ):
        link = f"bw={2**20 * 1e3!r}B/s,latency=0"
        layout, num = sent(link, devices=2, num=int(mebibytes * 2**18), **more)
        found = longest_s(layout, num_parameters=num, device=CPU)
        assert found[0] == pytest.approx(sure * 1e-3, abs=2e-9), more
        assert found[1] == (most and pytest.approx(most * 1e-3)), more


def test_a_mode_asked_for_is_refused_where_it_shows_no_link_and_checked_where_it_may_not() -> None:
    def checked(device: Device, layout: Layout, num: int) -> bool:
        return is_sure(layout, num_parameters=num, device=device)

    assert checked(CPU, *sent("10gbe")) and checked(GPU, *sent("h100-nvlink"))
    assert checked(CPU, *sent("h100-nvlink", mode="simulated"))
    assert not checked(CPU, *sent("10gbe", mitigate="powersgd-2"))
    assert not checked(CPU, *sent("10gbe", mode="throttled", strategy="fsdp"))
    for device, layout, words in (
        (CPU, sent("h100-nvlink", num=10**6), "would show nothing of h100-nvlink: no collective"),
        (CPU, sent("10gbe", num=9, strategy="fsdp", mode="throttled"), "--mode throttled"),
        (ROCM, sent("10gbe"), "cannot be emulated on cuda:0"),
    ):
        with pytest.raises(UsageError, match=words) as caught:
            checked(device, *layout)
        assert "use --mode simulated" in str(caught.value) and "\n" not in str(caught.value)


def test_a_cpu_plans_all_rows_in_one_mode_and_says_which_and_why(ask: Ask) -> None:
    words = ("run", "--device", "cpu", "-w", "imaging:train", "--size", "small", "--devices", "1,8")
    for more, mode, why in (
        (("--link", "10gbe,25gbe"), "emulated", "as long as the 1 ms"),
        (("--link", "infinite"), "emulated", "takes no time that a timer would have to keep"),
        (("--link", "h100-nvlink,10gbe"), "simulated", "on h100-nvlink the longest collective"),
        (
            ("--link", "10gbe", "--mitigate", "none,bf16,powersgd-2"),
            "simulated",
            "of ddp with powersgd-2 may take 92.4 us, and the timer here keeps 1 ms",
        ),
        # Whole weights of the one, little of the other: a sweep has one mode over workloads too.
        (("-w", "tabular:train", "--link", "10gbe"), "simulated", "on 10gbe"),
    ):
        document = ask(*words, *more, "--profile", "smoke", "--dry-run", "--json").document
        layouts = [one["config"]["layout"] for one in document["planned"]]
        assert {one["mode"] for one in layouts if one["link"]} == {mode}, more
        assert {one["mode"] for one in layouts if not one["link"]} == {"real"}
        *_, said = document["notes"]
        assert said.startswith(f"every row over a link is {mode}: ") and why in said
    assert (
        ask(*words, "--link", "10gbe", "--mode", "simulated", "--dry-run").out.count("every") == 0
    )


def test_what_only_the_net_knows_is_looked_at_before_a_mode_asked_for_is_measured(
    ask: Ask, tmp_path: Path
) -> None:
    words = ("run", "--device", "cpu", "-w", f"{NET}:train", "--size", "tiny", "--profile", "smoke")
    words += ("--devices", "8", "--mode", "emulated", "--out", str(tmp_path))
    link = "bw=500KB/s,latency=0us"  # of which the latency, which alone is sure, shows nothing
    refused = ask(*words, "--link", link, "--mitigate", "none,powersgd-1", code=2)
    assert refused.out == "" and not list(tmp_path.iterdir())
    note, said = refused.err.splitlines()[-2:]
    looked = f"small_net-train: looking at what ddp with powersgd-1 sends over {link} (not timed)"
    assert note == looked
    start = "bench: small_net-train by ddp with powersgd-1, --mode emulated: on bw=500KB/s"
    assert said.startswith(start) and "use --mode simulated" in said
    printed = ask(*words, "--link", link, "--parallel", "fsdp")
    assert "sends over" in printed.err and "[emulated]" in printed.out
    assert [row["status"] for row in rows_in(tmp_path)] == ["WARN"], "its unit of 1 KiB takes 2 ms"


def test_a_phase_that_cannot_join_is_left_out_of_the_sweep_and_named(
    ask: Ask, tmp_path: Path
) -> None:
    sweep = ("run", "--device", "fake", "-w", "imaging", "--size", "tiny", "--profile", "smoke")
    link = ("--link", "10gbe", "--out", str(tmp_path))
    left_out = "left out: imaging-infer by ddp on 8 devices: copies of the net communicate nothing"
    printed = ask(*sweep, *link, "--devices", "8", "--parallel", "ddp")
    assert left_out in printed.err and printed.out.count(left_out) == 1
    assert [row["workload"] for row in rows_in(tmp_path)] == ["imaging-train"]
    # A run that goes on has left out the same.
    assert left_out in ask("run", "--resume", only_file(tmp_path)).out
    document = ask(*sweep, *link, "--devices", "1,8", "--parallel", "ddp,fsdp", "--json").document
    assert left_out in document["notes"][0]
    found = {(one["workload"], one["device_count"], one["parallel"]) for one in document["rows"]}
    both = {(f"imaging-{one}", count, by) for one in ("train", "infer")
            for count, by in ((1, None), (8, "fsdp"))}  # fmt: skip
    assert found == both | {("imaging-train", 8, "ddp")}
    refused = ask("run", "--device", "fake", "-w", "imaging:infer", *link, "--devices", "8", code=2)
    assert "copies of the net communicate nothing in infer" in refused.err
    # A slip of the pen is no group that one cannot join.
    for slip in (("--mitigate", "none,powersgd"), ("--schedule", "2f2b"), ("--set", "filter=8")):
        refused = ask(*sweep, *link, "--devices", "1,8", "--parallel", "ddp", *slip, code=2)
        assert slip[1].rpartition(",")[2].partition("=")[0] in refused.err.splitlines()[-1]


def test_a_sweep_over_devices_and_links_says_what_each_row_is(ask: Ask, tmp_path: Path) -> None:
    link = "bw=1MB/s,latency=1ms"
    sweep = ("--devices", "1,2,64", "--link", f"{link},infinite", "--trials", "3")
    printed = ask(*TRAIN, "--out", tmp_path, *sweep).out
    assert "[simulated]" in printed and "fastest" in printed
    rows = rows_in(tmp_path)
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
    (config,) = planned(ask, *TRAIN, "--grad-accum", "4")
    found = (config["layout"]["grad_accum"], config["layout"]["data"])
    assert found == (4, 1), "accumulation alone is still one device"


def test_steps_of_one_trial_are_replayed_over_every_link_and_a_lost_row_alone_is_made_again(
    ask: Ask, tmp_path: Path
) -> None:
    links = ("h100-nvlink", "10gbe", "h800-nvlink*4/ndr")
    sweep = ("--devices", "8", "--link", ",".join(links), "--trials", "2")
    said = ask(*TRAIN, "--out", tmp_path, *sweep).err
    assert said.count(", also over ") == 2 and said.count("] imaging-train") == 2
    path = only_file(tmp_path)
    rows = rows_in(tmp_path)
    samples = read_samples(samples_path(path))
    assert len(rows) == len(samples) == 6 and len({row["config_hash"] for row in rows}) == 3
    for trial in (0, 1):
        found = {row["link"]: row for row in rows if row["trial"] == trial}
        assert found.keys() == set(links)
        for column in ("compute_step_ms", "started_utc", "attempt"):
            assert len({row[column] for row in found.values()}) == 1, column
        assert len({row["step_median_ms"] for row in found.values()}) == 3
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    said = ask("run", "--resume", path).err
    assert "[6/6]" in said and "also over" not in said
    again = rows_in(tmp_path)
    assert again[:-1] == rows[:-1]
    for column in ("link", "trial", "config_hash", "compute_step_ms", "step_median_ms"):
        assert again[-1][column] == rows[-1][column], column


UNLIKE: dict[str, dict[str, Value]] = {
    "mode is emulated, in after.csv throttled": {"mode": "throttled"},
    "link is pcie5, in after.csv h800-nvlink": {"link": "h800-nvlink"},
    "layout is dp8, in after.csv tp4 x dp2": {"layout": "tp4 x dp2"},
    "mitigation is blank, in after.csv fp16": {"mitigation": "fp16"},
    "grad_accum is 1, in after.csv 4": {"grad_accum": 4},
    "bucket_bytes is 26214400, in after.csv 1048576": {"bucket_bytes": 2**20},
}


def test_like_rows_are_compared_and_unlike_ones_listed_with_the_reason(
    write: Write, ask: Ask
) -> None:
    def compared(before: list[Row], after: list[Row], *, code: int = 0) -> Any:
        files = write(before=before, after=after)
        return ask("compare", *files, "--json", code=code).document

    same: dict[str, Value] = {"config_hash": "c0ffee"}
    for reason, changed in UNLIKE.items():
        after = link_run("pcie5", 60.0, cells=changed | same)
        document = compared(link_run("pcie5", 60.0, cells=same), after, code=5)
        assert document["rows"] == [] and document["exit_code"] == 5, reason
        assert reason in [one["reason"] for one in document["unmatched"]]
        assert "[emulated]" in document["unmatched"][0]["name"]
    document = compared(three_links(), three_links())
    assert len(document["rows"]) == 3 and document["unmatched"] == []
    row = next(row for row in document["rows"] if row["link"] == "pcie5")
    assert (row["layout"], row["grad_accum"], row["mitigation"]) == ("dp8", 1, "")
    assert row["ratio"] == pytest.approx(1.0)
    document = compared(real_run(cells={"schema_version": "1.0"}), real_run())
    assert [row["verdict"] for row in document["rows"]] == ["SAME"], "an old file"


def test_exports_name_layouts_apart_and_leave_out_losses_of_virtual_ranks(
    write: Write, ask: Ask
) -> None:
    cells: dict[str, Value] = {"loss_last": 0.123456789, "loss_first": 0.987654321}
    rows = [
        *link_run("pcie5", 60.0, cells=cells),
        *link_run("pcie5", 60.0, cells={"mitigation": "fp16"}),
        *link_run("pcie5", 60.0, cells={"parallel": "tp", "layout": "tp4 x dp2"}),
        *real_run(cells={"loss_last": 0.5}),
    ]
    answer = ask("export", *write(rows=rows), "--to", "json")
    assert "0.123456789" not in answer.out and "0.987654321" not in answer.out
    assert "loss_last" in answer.out and "comm_exposed_ms" in answer.out
    *names, _ = [one["name"] for one in answer.document["configurations"]]
    layouts = ("ddp over pcie5", "ddp over pcie5 with fp16", "tp tp4 x dp2 over pcie5")
    for name, layout in zip(names, layouts, strict=True):
        assert f"[emulated] x8 {layout} on " in name


INFER: dict[str, Value] = {"workload": "imaging-infer"}
FSDP: dict[str, Value] = {"parallel": "fsdp"}


def test_the_gap_is_of_one_device_unless_asked(write: Write, ask: Ask) -> None:
    links = [
        *link_run("pcie5", 60.0, cells=FSDP),
        *link_run("pcie5", 10.0, cells=FSDP | INFER),
    ]
    (file,) = write(rows=[*real_run(100.0), *real_run(cells=INFER), *links])
    answer = ask("gap", file, "--json")
    gaps = answer.document["gaps"]
    assert [gap["time_ratio"]["value"] for gap in gaps] == [pytest.approx(2.0)]
    assert answer.document["num_other_layouts"] == 2
    assert "2 configurations over several devices or modelled links left out" in answer.err
    gaps = ask("gap", file, "--json", "--all-layouts").document["gaps"]
    ratios = {gap["link"]: gap["time_ratio"]["value"] for gap in gaps}
    assert ratios == {None: pytest.approx(2.0), "pcie5": pytest.approx(160.0 / 110.0)}
    # Links alone are not empty and mix nothing.
    apart = [*links[:3], *link_run("pcie4", 60.0, cells=FSDP | INFER)]
    document = ask("gap", *write(rows=apart), "--json", code=5).document
    assert document["gaps"] == [] and len(document["missing"]) == 2


def test_the_command_for_a_missing_half_names_link_layout_and_mitigation(
    write: Write, ask: Ask
) -> None:
    prefill: dict[str, Value] = {"workload": "llm-prefill", "parallel": "tp"}
    layout: dict[str, Value] = {"layout": "tp4 x dp2", "bucket_bytes": None}
    mitigated: dict[str, Value] = {"mitigation": "powersgd-2", "grad_accum": 4}
    for rows, command in (
        (
            link_run("bw=25GB/s,latency=5us", 9.0, cells=prefill | layout),
            "--device cpu --devices 8 --parallel tp --tp 4 --dp 2 "
            "--link bw=25GB/s,latency=5us --mode emulated",
        ),
        (
            link_run(
                *("pcie5", 9.0),
                devices=65536,
                cells=INFER | mitigated | {"bucket_bytes": 5 * 2**20},
            ),
            "--devices 65536 --parallel ddp --link pcie5 --mode emulated --bucket-mib 5 "
            "--grad-accum 4 --mitigate powersgd-2",
        ),
    ):
        (missing,) = ask("gap", *write(rows=rows), "--json", code=5).document["missing"]
        assert missing["command"].endswith(command)
    out = ask("gap", *write(rows=link_run("pcie5", 60.0)), code=5).out
    assert "copies of a net send nothing in inference" in out
    assert "bench run" not in out

"""`bench project --net` through the command line: clusters that nobody here has."""

import json
import re
from typing import Any

import pytest

from bench.results.schema import Row
from tests.analysis.synthetic_rows import trials
from tests.analysis.test_projection_rows import ROOFS
from tests.cli.conftest import Ask, Write

NET = ("project", "--net", "llama3-8b", "--to", "h800-sxm", "--devices", "64")


def test_a_layout_has_step_speed_mfu_memory_and_interval(ask: Ask) -> None:
    words = (*NET, "--tp", "4", "--pp", "2", "--micro-batch", "2", "--global-batch", "256")
    shown = ask(*words).out
    assert shown.startswith("Projected (")
    assert "token/s" in shown.partition("brackets")[0], "a narrow screen keeps the speed"
    document = ask(*words, "--json").document
    (step,) = document["steps"]
    assert document["kind"] == "projected" and step["dp"] == 8 and step["link"]
    time_s = step["projected_step_s"]
    assert time_s["low"] < time_s["mid"] < time_s["high"]
    tokens_per_s = 256 * 8192 / time_s["mid"]
    assert step["projected_tokens_per_s"]["mid"] == pytest.approx(tokens_per_s)
    flops = 6 * (8.0303e9 - 128256 * 4096) + 12 * 32 * 4096 * 8192
    mfu = tokens_per_s * flops / (64 * 989.4e12)
    assert step["projected_mfu_frac"]["mid"] == pytest.approx(mfu, rel=0.001)
    assert sum(step["parts"].values()) == pytest.approx(time_s["mid"])
    shape = (*NET[:-2], "--tp", "4", "--pp", "2", "--dp", "8", *words[-4:])
    assert ask(*shape, "--json").document == document, "the layout says how many devices"
    more = ask(*words, "--recompute", "full", "--json").document["steps"][0]
    assert more["projected_memory_bytes"]["mid"] < step["projected_memory_bytes"]["mid"]
    slow = ask(*words, "--link", "pcie5*8/25gbe", "--json").document["steps"][0]
    assert slow["projected_step_s"]["mid"] > 1.5 * time_s["mid"]


def test_a_search_ranks_what_fits_and_says_what_the_narrower_link_changed(ask: Ask) -> None:
    out = ask(*NET, "--search").out
    assert "best on h800-sxm: tp " in out and "layouts fit" in out
    steps = ask(*NET, "--search", "--json").document["steps"]
    times = [one["projected_step_s"]["mid"] for one in steps]
    assert times == sorted(times) and len(steps) == 10 and all(one["fits"] for one in steps)
    refused = ask(*NET[:-1], "1", "--search", code=5).one_line
    assert refused.endswith("fits in its memory; try more --devices or --software fsdp")
    refused = ask(*NET[:-1], "1", "--search", "--software", "fsdp", code=5).one_line
    assert refused.endswith("fits in its memory; try more --devices")
    assert "does not fit" in ask(*NET[:-1], "1").out
    # 31 layers make no stages and one sequence no replicas: all share each product, if any.
    alone = ("--net", "llama3-8b:layers=31", "--global-batch", "1", "--link", "infinite")
    assert "tp 16 pp 1 dp 1" in ask(*NET, "--devices", "16", *alone, "--search").out


def test_a_narrow_screen_keeps_what_a_search_is_for(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def heads(columns: int) -> list[str]:
        monkeypatch.setenv("COLUMNS", str(columns))
        title, line, *_ = ask(*NET, "--search").out.splitlines()
        assert title == "Projected: llama3-8b on 64 x h800-sxm"
        return re.split(r" {2,}", line.strip())

    assert heads(80) == ["layout", "step", "token/s", "memory"]
    assert heads(100)[:6] == ["rank", "layout", "step", "token/s", "memory", "MFU"]
    assert heads(140)[6:9] == ["on h100", "slower by", "rank there"]
    slow = ("project", "--net", "gpt3-175b:attention=unfused", "--to", "h100-sxm-80g", "--search")
    monkeypatch.setenv("COLUMNS", "100")
    out = ask(*slow, "--devices", "64").out
    assert "MFU" in out.splitlines()[1] and "158 s [" in out, "minutes are as many seconds"


def test_what_a_search_found_can_be_typed(ask: Ask) -> None:
    """Interleaved pipelines are tried, each with as few chunks as are as good as more."""
    steps = ask(*NET, "--search", "--json").document["steps"]
    (one,) = (step for step in steps[:3] if step["tp"] == 1 and step["pp"] == 2)
    assert one["schedule"] == "interleaved-4", one
    assert "tp 1 pp 2 dp 32 interleaved-4" in ask(*NET, "--search").out
    typed = (*NET, "--tp", "1", "--pp", "2", "--micro-batch", str(one["micro_batch"]))

    def again(*words: str) -> dict[str, Any]:
        document: dict[str, Any] = ask(*typed, *words, "--json").document["steps"][0]
        return document

    assert again("--schedule", "interleaved-4") == one
    plain, more = again(), again("--schedule", "interleaved-16")
    assert plain["schedule"] == "1f1b"
    for what, sign in (("projected_step_s", 1), ("projected_memory_bytes", -1)):
        assert sign * plain[what]["mid"] > sign * one[what]["mid"], what
    ratio = one["projected_step_s"]["mid"] / more["projected_step_s"]["mid"]
    assert 1.0 < ratio < 1.02, "more chunks win next to nothing"


def test_a_search_shards_weights_when_asked(ask: Ask) -> None:
    words = (
        "project",
        "--net",
        "llama3-70b",
        "--to",
        "h100-sxm-80g",
        "--devices",
        "128",
        "--search",
    )
    document = ask(*words, "--software", "fsdp", "--json").document
    assert all(one["pp"] == 1 and one["fits"] for one in document["steps"])
    assert any(one["tp"] == 1 for one in document["steps"]), (
        "no other program fits 70b in tp 1 pp 1"
    )
    assert not any(one["tp"] == one["pp"] == 1 for one in ask(*words, "--json").document["steps"])
    assert "as PyTorch FSDP does it" in document["notes"][0]


def test_a_chip_that_nothing_is_known_of_does_not_hide_the_others(ask: Ask) -> None:
    out = ask(*NET[:3], "--to", "t4,h20", "--devices", "8", "--tp", "8").out
    assert "8 x h20-96g" in out
    assert "left out: t4 has no known peak in bf16; try --dtype fp16" in out


def test_no_interval_passes_the_peak_but_for_what_attention_skips(ask: Ask) -> None:
    words = ("project", "--devices", "1", "--global-batch", "128", "--net")
    wide = "gpt:h=16384,layers=2,heads=128,seq=2048,attention=unfused"
    asked = (*words, wide, "--micro-batch", "2", "--to", "h20")
    mfu = ask(*asked, "--json").document["steps"][0]["projected_mfu_frac"]
    assert 0.9 < mfu["mid"] < mfu["high"] == pytest.approx(1.0)
    said = "more than all of it where fused attention skips the masked half"
    assert said not in ask(*asked).out
    assert said in ask(*words, "gpt:h=2048,layers=2,heads=16,seq=131072", "--to", "a800-sxm").out


def test_a_measured_row_scales_what_the_chip_does(write: Write, ask: Ask) -> None:
    sizes = {
        "hidden": 2048, "layers": 16, "heads": 32, "kv_heads": 8, "intermediate": 8192,
        "vocab": 128256, "sequence_tokens": 2048, "is_tied": True,
    }  # fmt: skip

    def rows(step_ms: float) -> list[Row]:
        cells = {
            **ROOFS, "workload": "llm-train", "params_json": json.dumps(sizes), "batch": 4,
            "chip": "h100-sxm-80g", "device_type": "cuda", "dtype": "bf16", "items_unit": "token",
            "items": 4 * 2048 * 50, "steps": 50, "step_mean_ms": step_ms,
            "step_median_ms": step_ms, "throughput_per_s": 4 * 2048 / step_ms * 1e3,
            "window_s": 50 * step_ms / 1e3,
        }  # fmt: skip
        return trials(num=3, **cells)  # type: ignore[arg-type]

    fast, slow = write(fast=rows(150.0), slow=rows(300.0))
    plain, one, two = (
        ask("project", *files, *NET[1:], "--tp", "2", "--json").document
        for files in ((), (fast,), (slow,))
    )
    parts = [each["steps"][0]["parts"] for each in (plain, one, two)]
    assert parts[2]["products_s"] == pytest.approx(2 * parts[1]["products_s"])
    assert parts[2]["tensor_s"] == parts[0]["tensor_s"]
    assert any("compute is scaled by x" in note for note in two["notes"])
    imaging = write(images=trials(num=3, **ROOFS))[0]
    asked = ("project", imaging, "--net", "imaging", "--to", "h800-sxm", "--devices", "16")
    out = ask(*asked).out
    assert out.startswith("Projected (") and "16 x h800-sxm" in out and "dp 16" in out
    refused = ask("project", imaging, *NET[1:], code=5).one_line
    assert "hold no training of a decoder" in refused


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--net", "llama3-8b"), "--to needs chips of the catalogue"),
        (("--net", "llama3-8b", "--to", "t4"), "t4 has no known peak in bf16; try --dtype fp16"),
        ((*NET[1:], "--tp", "3"), "--devices 64 is no multiple of --tp 3 --pp 1"),
        ((*NET[1:-1], "1", "--tp", "2"), "--devices 1 is no multiple of --tp 2 --pp 1"),
        ((*NET[1:], "--tp", "64"), "--tp 64 does not divide 32 heads"),
        ((*NET[1:], "--pp", "64"), "--pp 64 does not divide the 32 layers"),
        ((*NET[1:], "--global-batch", "100"), "--global-batch 100 is no multiple of --dp 64"),
        ((*NET[1:], "--recompute", "some"), "--recompute"),
        ((*NET[1:], "--schedule", "gpipe", "--pp", "2"), "1f1b or interleaved-V"),
        ((*NET[1:], "--schedule", "interleaved-3", "--pp", "2"), "--pp 2 times 3 chunks"),
        ((*NET[1:], "--tp", "0"), "--tp 0 is not between 1 and"),
        ((*NET[1:], "--search", "--tp", "2"), "--search finds --tp, --pp"),
        ((*NET[1:-1], "7", "--search"), "--devices 7 cannot be laid out for 32 heads"),
        ((*NET[1:], "--software", "2019"), "--software"),
        (
            (*NET[1:], "--software", "fsdp", "--pp", "2"),
            "fsdp has no pipeline here: leave out --pp",
        ),
        ((*NET[1:], "--dtype", "fp8"), "bf16 or fp16"),
        ((*NET[1:], "--score"), "--net goes with --to"),
        (("--net", "imaging", "--to", "h20"), "needs a result file"),
        (("--net", "imaging:size=3", "--to", "h20"), "imaging (as measured, with no changes"),
        (("--net", "imaging-infer", "--to", "h20"), "'imaging-infer' is not one of"),
        ((*NET[1:3], "--to", "t4,v100-sxm2-32g"), "t4 has no known peak in bf16"),
        (("--to", "h20"), "name result files, or a net"),
        (("x.csv", "--to", "h20", "--tp", "2"), "go with --net"),
    ],
)
def test_what_cannot_be_projected_is_one_clear_line(
    words: tuple[str, ...], said: str, ask: Ask
) -> None:
    assert said in ask("project", *words, code=2).one_line

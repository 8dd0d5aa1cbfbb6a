"""What a projection starts from, rows and profiles; and its score on published ratios."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from bench.analysis.projection import scoring
from bench.analysis.projection.measured import measured_of
from bench.analysis.projection.published_ratios import COLUMNS, RatioPoint, read_points
from bench.core.errors import BenchError, DataError, ExitCode
from bench.hardware.chips import load_chips
from bench.hardware.operators import total
from bench.results.beside_rows import StoredProfile, profiles_path, read_profiles, write_profile
from bench.results.schema import Row
from tests.analysis.synthetic_rows import trials

LESS = "this device with 2 cores"
ROOFS = {"roof_flops_per_s": 1e12, "roof_bytes_per_s": 1e11, "flops_per_item": 4e10,
         "bytes_per_item": 1e8, "device_vendor": "amd"}  # fmt: skip
PROFILE = {
    "covered_frac": 0.8,
    "operators": [
        {"kind": "gemm", "dtype": "fp32", "calls": 3, "flops": 8e10, "bytes": 1e8,
         "least_bytes": 1e8, "time_s": 0.3},
        {"kind": "copy", "dtype": "fp32", "calls": 1, "flops": 1e6, "bytes": 1e8,
         "least_bytes": 0.0, "time_s": 0.1},
    ],
}  # fmt: skip


def rows(**cells: object) -> list[Row]:
    return trials(noise_frac=0.0, num=3, **{**ROOFS, **cells})  # type: ignore[arg-type]


def of_run(path: Path) -> dict[tuple[str, str, str], StoredProfile]:
    return {("run1", *key): one for key, one in read_profiles(path).items()}


def damaged(**changes: object) -> str:
    whole = {"config_hash": "c", "device": "cpu", "covered_frac": 1, "operators": []}
    return json.dumps({"version": 1, "profiles": [{**whole, **changes}]})


def test_trials_are_one_start_and_a_profile_lies_over_its_step_or_is_refused(
    tmp_path: Path,
) -> None:
    (one,), left_out = measured_of(rows(), profiles={})
    assert not left_out and not one.has_profile
    assert one.num_trials == 3 and not one.is_host_bound
    ((paced,), _) = measured_of(rows(reasons="steal;host_bound"), profiles={})
    assert paced.is_host_bound
    assert one.step_s == pytest.approx(0.1)
    assert one.throughput_per_s == pytest.approx(20.0)
    # Two items of 40 GFLOP a step.
    assert one.operators[0].flops == pytest.approx(8e10)
    assert one.operators[0].time_s == pytest.approx(0.1)
    no_start = (
        ({"status": "FAILED"}, "no usable trial"),
        ({"mode": "emulated"}, "emulated"),
        ({"device_count": 8}, "several devices"),
        ({"device_type": "fake"}, "fake"),
        ({"roof_flops_per_s": None}, "roof was not measured"),
        ({"throughput_per_s": None, "window_s": None}, "no step time"),
    )
    for cells, said in no_start:
        found, left_out = measured_of(rows(**cells), profiles={})
        assert not found and said in left_out[0].reason, said
    path, other = tmp_path / "run.csv", tmp_path / "other.csv"
    write_profile(path, config_hash="c0ffee", device="cpu", profile=PROFILE)
    ((one,), _) = measured_of(rows(), profiles=of_run(path))
    assert one.has_profile
    # 0.1 s a step, of which 0.8 is covered, three quarters of it by products.
    assert one.operators[0].time_s == pytest.approx(0.06)
    assert total(one.operators, "time_s") == pytest.approx(0.08)
    assert one.overhead_s == pytest.approx(0.02)
    # The run of another machine has a mix of its own.
    there = rows(run_id="run2", host_hash="bbbb", step_median_ms=300.0)
    (here, elsewhere), _ = measured_of([*rows(host_hash="aaaa"), *there], profiles=of_run(path))
    assert (here.has_profile, elsewhere.has_profile) == (True, False)
    assert elsewhere.device == "Test CPU (host bbbb)"
    # One of another configuration is not used.
    write_profile(other, config_hash="0ther", device="cpu", profile=PROFILE)
    ((one,), _) = measured_of(rows(), profiles=of_run(other))
    assert not one.has_profile
    path = tmp_path / "twice.csv"
    for name, covered in (("c", 0.5), ("c", 0.9), ("d", 0.8)):
        profile = {**PROFILE, "covered_frac": covered}
        write_profile(path, config_hash=name, device="cpu", profile=profile)
    found = {key: one.covered_frac for key, one in read_profiles(path).items()}
    assert found == {("c", "cpu"): 0.9, ("d", "cpu"): 0.8}
    for text in (
        "", "[]", "{}", '{"version": 2, "profiles": []}', '{"version": 1, "profiles": [3]}',
        '{"version": 1, "profiles": [{}]}', damaged(covered_frac=7),
        damaged(operators=[{"kind": "gemm"}]),
        damaged(operators=[{**PROFILE["operators"][0], "flops": -1}]),  # type: ignore
    ):  # fmt: skip
        profiles_path(path).write_text(text)
        with pytest.raises(DataError) as raised:
            read_profiles(path)
        assert "\n" not in str(raised.value)


def limited(*, step_ms: float = 200.0, num: int = 1, **cells: object) -> list[Row]:
    """Rows of less of the device that `rows` are of, under a hash of their own."""
    blank = {"roof_flops_per_s": None, "roof_bytes_per_s": None}
    own = {**ROOFS, **blank, "config_hash": "1e55", "chip_limit": LESS, **cells}
    return trials(step_ms=step_ms, num=num, noise_frac=0.0, **own)  # type: ignore[arg-type]


def test_every_limit_stands_beside_its_start_by_itself_or_is_named() -> None:
    ((alone,), _) = measured_of(rows(), profiles={})
    both = [*limited(), *limited(step_ms=400.0, chip_limit="one core", config_hash="1e551")]
    ((start,), _) = measured_of([*both, *rows()], profiles={})
    assert [rate.value for _, rate in start.limited] == pytest.approx([10.0, 5.0])
    assert [rate.interval for _, rate in start.limited] == [None, None]
    assert start.step_s == alone.step_s and start.num_trials == alone.num_trials
    both = [*limited(step_ms=100.0), *limited(step_ms=400.0, run_id="run2")]
    ((start,), _) = measured_of([*rows(), *both], profiles={})
    ((limit, rate),) = start.limited
    # 20/s and 5/s; two trials have t = 12.7062 at 95 % and an error of log(4) / 2.
    assert (limit, rate.value, rate.num) == (LESS, pytest.approx(10.0), 2)
    assert (rate.interval or (0.0, 0.0))[1] == pytest.approx(
        10.0 * math.exp(12.7062 * math.log(4) / 2), rel=1e-3
    )
    found, left_out = measured_of([*rows(roof_flops_per_s=None), *limited()], profiles={})
    assert not found
    assert ["roof" in one.reason for one in left_out] == [True, False]
    figures = (None, 0.0, -1.0, 1e-300, 1e300, math.nan, True)
    for figure in figures:
        cells = {"window_s": figure, "throughput_per_s": figure}
        damaged_rows = [{**row, **cells} for row in limited()]
        (start,), left_out = measured_of([*rows(), *damaged_rows], profiles={})
        assert start.limited == (), cells
        assert [one.reason for one in left_out] == [f"no step time was measured on {LESS}"]
    # Another configuration or device is not beside it.
    for cells in ({"workload_version": "2-abc"}, {"params_json": '{"batch": 4, "patch": 32}'},
                  {"dtype": "bf16"}, {"compile": True}, {"grad_accum": 4}, {"size": "small"},
                  {"data": "resident"}, {"channels_last": True},
                  {"device_name": "Another CPU"}):  # fmt: skip
        (start,), left_out = measured_of([*rows(), *limited(**cells)], profiles={})
        assert start.limited == () and len(left_out) == 1, cells
        assert LESS in left_out[0].reason and "on the whole of it" in left_out[0].reason


RATIOS = Path(__file__).resolve().parents[3] / "shared" / "data" / "ratios.csv"
needs_ratios = pytest.mark.skipif(not RATIOS.is_file(), reason=f"no {RATIOS.name} is here")
HEADER = ",".join(COLUMNS)
GOOD = "a100-sxm-80g,h100-sxm-80g,train,BERT,transformer,8,2.0,a note,somewhere"


def write(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "ratios.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def score(a: str, b: str, *, ratio: float = 1.0, **cells: Any) -> scoring.Scored:
    words = {"kind": "cnn2d", "phase": "train", "net": "net", "note": "", "point_id": ""}
    figures = {"num_devices": 1, "throughput_ratio_b_over_a": ratio}
    return scoring.score_point(RatioPoint(chip_a=a, chip_b=b, **(figures | words | cells)))


def test_a_good_file_is_read_whole_and_a_bad_line_is_one_with_its_number(tmp_path: Path) -> None:
    found = read_points(write(tmp_path, HEADER, GOOD, '"t4",l4,infer,X,rnn,1,1.5,"a, b",p'))
    assert [one.chip_b for one in found] == ["h100-sxm-80g", "l4"]
    assert found[0].num_devices == 8 and found[1].note == "a, b"
    bad = {
        ("a100-sxm-80g", "z9000"): "line 2: chip 'z9000'",
        ("2.0", "fast"): "line 2: throughput_ratio_b_over_a: expected a number",
        ("2.0", "nan"): "throughput_ratio_b_over_a: expected a number",
        ("2.0", "-2"): "throughput_ratio_b_over_a: expected a number",
        ("2.0", "inf"): "throughput_ratio_b_over_a: expected a number",
        (",8,", ",0,"): "num_devices",
        (",8,", ",²,"): "num_devices",
        ("transformer", ""): "kind: expected text",
        ("a note", '"a note'): "line 2",
        (",8,2.0,a note,somewhere", ""): "line 2 has 5 cells",
    }
    files = {(HEADER, GOOD.replace(*change)): said for change, said in bad.items()}
    files |= {("a,b,c",): "first line must be", (HEADER,): "no ratio", ("",): "first line must be"}
    files |= {(HEADER, GOOD, GOOD.replace("2.0", "fast")): "line 3: throughput_ratio"}
    files |= {
        (f"{HEADER},colour", f"{GOOD},red"): "then any of dtype_a,dtype_b,step_s_a",
        (f"{HEADER},dtype_b", f"{GOOD},fp4"): "line 2: dtype_b: 'fp4' is not one of fp32",
        (f"{HEADER},step_s_a,link_a", f"{GOOD},0.5,h100-nvlink"): "go together; empty: link_b",
        (f"{HEADER},{LINKED}", f"{GOOD},0.5,h100-nvlink,nolink,1e9"): "line 2: .*nolink",
        (f"{HEADER},{LINKED}", f"{GOOD},0,h100-nvlink,pcie5,1e9"): "line 2: step_s_a",
    }
    for lines, said in files.items():
        with pytest.raises(DataError, match=said) as raised:
            read_points(write(tmp_path, *lines))
        assert "\n" not in str(raised.value)
        assert raised.value.exit_code == ExitCode.USAGE


LINKED = "step_s_a,link_a,link_b,parameters"


def test_columns_that_a_party_published_say_what_is_not_the_chip(tmp_path: Path) -> None:
    """Of 1 s, 1e9 gradients of 4 bytes take eight 7/4 x 4 GB at 50 GB/s, 0.14 s, of which all or
    nothing is hidden: on a free link 0.93 s are left in the middle, from a free link it is 1.07 s.
    """
    slow, free = "bw=50GB/s,latency=1us,error=0%", "infinite"
    lines = [f'{GOOD},,,1.0,"{one}","{other}",1e9' for one, other in ((slow, free), (free, slow))]
    found = read_points(write(tmp_path, f"{HEADER},dtype_a,dtype_b,{LINKED}", f"{GOOD},,fp8,,,,",
                              *lines))  # fmt: skip
    assert [one.has_link for one in found] == [False, True, True]
    assert (found[0].dtype_a, found[0].dtype_b, found[0].dtypes) == ("fp16", "fp8", "fp16 -> fp8")

    def same(one: str, other: str, **cells: Any) -> scoring.Estimate:
        linked = {"step_s_a": 1.0, "link_a": one, "link_b": other, "parameters": 1e9}
        answer = score("h100-sxm-80g", "h100-sxm-80g", num_devices=8, **linked, **cells).projected
        assert answer is not None
        return answer

    assert same(slow, slow).mid == pytest.approx(1.0)
    assert same(slow, free).mid == pytest.approx(1 / 0.93, rel=0.005)
    assert same(free, slow).mid == pytest.approx(1 / 1.07, rel=0.005)
    # Twice the batch is twice the compute beside one exchange: two items in 2.07 s.
    twice = same(free, slow, batch_a=4.0, batch_b=8.0).mid
    assert twice == pytest.approx(2 / 2.07, rel=0.005)
    assert same(slow, free, phase="infer").mid == 1.0, "inference exchanges nothing"
    # An exchange longer than the step cannot be: the step is then nearly all of it.
    assert 1.0 < same("bw=1GB/s,latency=1us,error=0%", free).mid < 2e3
    wide, narrow = (score("a100-sxm-80g", "h100-sxm-80g", dtype_b=name) for name in ("fp16", "fp8"))
    assert wide.projected is not None and narrow.projected is not None
    assert narrow.projected.mid > 1.05 * wide.projected.mid
    assert narrow.projected.width > wide.projected.width, "how much of a net is in it is not known"
    missing = score("a100-sxm-80g", "h100-sxm-80g", dtype_a="fp8")
    assert missing.projected is not None, "int8 stands in"
    assert score("mi250", "h100-sxm-80g", dtype_a="fp8").projected is not None
    assert "peak in fp8" in score("v100-sxm2-32g", "h100-sxm-80g", dtype_a="fp8").reason


@settings(max_examples=60)
@given(content=st.binary(max_size=300))
def test_no_file_is_a_traceback(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "ratios.csv"
    path.write_bytes(content)
    with pytest.raises(BenchError):
        read_points(path)


def test_the_same_chip_gives_one_a_turned_pair_the_inverse_and_every_miss_has_a_reason() -> None:
    for name in ("a100-sxm-80g", "l4", "mi300x"):
        for kind in ("transformer", "cnn2d"):
            one = score(name, name, kind=kind)
            assert one.projected is not None and one.is_inside
            assert one.projected.mid == pytest.approx(1.0)
    there = score("a100-sxm-80g", "h100-sxm-80g").projected
    back = score("h100-sxm-80g", "a100-sxm-80g").projected
    assert there is not None and back is not None
    # Not exactly: what is evenly shared on one chip is not on the other.
    assert there.low * 0.8 < 1.0 / back.mid < there.high * 1.2
    kinds = ("cnn3d", "transformer", "llm", "cnn2d", "rnn", "gnn", "something new")
    by_mix = [kind for kind in kinds if score("a100-sxm-80g", "l4", kind=kind).by_mix]
    assert by_mix == ["cnn3d", "transformer", "llm"]
    train, infer = (
        {one.kind for one in scoring.operators_for("cnn3d", phase)} for phase in ("train", "infer")
    )
    assert "optimizer" in train and "optimizer" not in infer
    assert scoring.operators_for("llm", "decode") != scoring.operators_for("llm", "prefill")
    scored = [score("a100-sxm-80g", "h100-sxm-80g", ratio=ratio) for ratio in (1.0, 1.9, 100.0)]
    middle = scored[0].projected
    assert middle is not None
    every = scoring.summaries(scored)[0]
    errors = sorted(abs(middle.mid / ratio - 1.0) for ratio in (1.0, 1.9, 100.0))
    assert every.median_error_frac == pytest.approx(errors[1])
    assert every.inside_frac == pytest.approx(1 / 3)
    assert every.median_width == pytest.approx(middle.high / middle.low)
    high = score("a100-sxm-80g", "h100-sxm-80g", ratio=9.0)
    low = score("a100-sxm-80g", "h100-sxm-80g", ratio=0.5)
    assert "above every roof" in high.reason and "fp8" in high.reason
    assert "below every roof" in low.reason
    scored = [score("h100-sxm-80g", row.id, kind="transformer") for row in load_chips()]
    unknown = [one for one in scored if one.projected is None]
    assert [one for one in scored if "not known" in one.reason] == unknown
    assert "tianjic" in {one.point.chip_b for one in unknown}
    assert scoring.summaries(scored)[0].num_points == len(scored) - len(unknown)


IN_FP8 = {
    "mlperf-train-v3.0-dell-a100-vs-h100": ("BERT-large",),
    "mlperf-inf-v3.0 and v2.1": ("BERT-99.9",),
}
"""Nets that the file's own notes have in fp16 on the A100 and in fp8 on the H100."""


@needs_ratios
def test_the_method_is_no_worse_on_published_ratios_than_it_was() -> None:
    """Most of these ratios came after the method was built; the intervals are meant to hold 0.8."""
    points = read_points(RATIOS)
    told = [
        structs.replace(one, dtype_b="fp8") if one.net in IN_FP8.get(one.point_id, ()) else one
        for one in points
    ]
    assert sum(one.dtypes != "" for one in told) == 2
    for given_points, inside_frac in ((points, 0.79), (told, 0.80)):
        found = scoring.summaries(list(map(scoring.score_point, given_points)))
        every = found[0]
        assert every.name == "all" and every.num_points > 40
        assert every.median_error_frac <= 0.09 and every.median_width <= 1.6
        assert every.inside_frac >= inside_frac
        silicon = {one.name: one.num_points for one in found if one.name.startswith("silicon")}
        assert sum(silicon.values()) == every.num_points and len(silicon) == 2

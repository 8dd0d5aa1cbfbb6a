"""Rates are medians of synchronised batches, and a roof is kept for the device it belongs to."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from msgspec import structs

from bench.core.nouns import Device
from bench.devices.telemetry.common import Baseline
from bench.devices.torch import rates, roof
from bench.devices.torch.adapter import Adapter
from bench.devices.torch.rates import largest_cache_bytes
from tests.devices.replay_telemetry import ReplayTelemetry

CPU = Device(
    type="cpu", index=0, name="AMD EPYC 9654", vendor="amd", stack="CPU", memory_bytes=64 * 2**30
)
GPU = Device(
    type="cuda",
    index=1,
    name="NVIDIA H200",
    vendor="nvidia",
    stack="CUDA 13.0",
    memory_bytes=140 * 2**30,
    uuid="1234-secret",
)


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "gapbench"


def make_roof(device, **changes):
    made = roof.Roof(
        type=device.type,
        label=device.label,
        name=device.name,
        uuid_hash=roof.hashed_uuid(device),
        torch_version=str(torch.__version__),
        threads=None,
        driver_version=None,
        power_limit_w=None,
        flops_per_s={"fp32": 5e13, "bf16": 7e14},
        sustained_flops_per_s={"fp32": 5e13, "bf16": 6.8e14},
        tried={"fp32": {"4096 NN": 5e13}, "bf16": {"8192 NN": 6.9e14, "8192 NT": 7e14}},
        unsupported=("tf32",),
        bytes_per_s=4e12,
        foreign_cpu_frac=0.01,
        method=roof.METHOD,
        measured_utc="2026-01-01T00:00:00Z",
    )
    return structs.replace(made, **changes)


class FakeTime:
    """A clock that only work moves, and an adapter that counts synchronisations."""

    def __init__(self, monkeypatch, durations_s):
        self.now_s = 0.0
        self.durations_s = durations_s
        self.num_calls = 0
        self.num_synchronised = 0
        monkeypatch.setattr(rates.time, "perf_counter", lambda: self.now_s)

    def call(self):
        self.now_s += self.durations_s(self.num_calls)
        self.num_calls += 1

    def synchronize(self):
        self.num_synchronised += 1


def call_s(clock, budget_s=8.0):
    return rates._call_s(
        lambda: clock.call,
        adapter=clock,
        kind="cpu",
        budget_s=budget_s,
        warmup_s=rates._WARMUP_S["cpu"],
    )


# Each batch is 25 calls of 2 ms after 30 or so of warm-up.
@pytest.mark.parametrize("odd_s", [{}, {0: 0.5}, {60: 1.0, 90: 0.0}])
def test_a_slow_first_call_and_odd_repeats_do_not_count(monkeypatch, odd_s):
    clock = FakeTime(monkeypatch, lambda number: odd_s.get(number, 0.002))
    assert call_s(clock) == pytest.approx(0.002, rel=1e-9)


def test_a_call_longer_than_the_budget_is_still_measured(monkeypatch):
    clock = FakeTime(monkeypatch, lambda number: 30.0)
    assert call_s(clock, budget_s=1.0) == pytest.approx(30.0)
    assert clock.num_calls <= 3


def test_a_batch_is_synchronised_at_both_ends_and_not_between(monkeypatch):
    clock = FakeTime(monkeypatch, lambda number: 0.001)
    assert rates._timed_s(clock.call, adapter=clock, num_calls=40) == pytest.approx(0.001)
    assert (clock.num_calls, clock.num_synchronised) == (40, 2)


class FakeProducts:
    """torch.mm in the time that `rate(side, layout)` says; the first call of a shape takes longer.

    Matrices on the meta device take no memory.
    """

    label = "meta:0"

    def __init__(self, monkeypatch, rate, *, cold_s=0.03, limited_frac=1.0):
        self.now_s, self.busy_s, self.rate = 0.0, 0.0, rate
        self.cold_s, self.limited_frac = cold_s, limited_frac
        self.sides, self.shapes, self.last = [], set(), None
        monkeypatch.setattr(rates.time, "perf_counter", lambda: self.now_s)
        monkeypatch.setattr(rates.torch, "mm", self.mm)

    def mm(self, left, right, *, out):
        side, layout = left.shape[0], "NN" if right.is_contiguous() else "NT"
        self.dtype = left.dtype
        rate = self.rate(side, layout) * (self.limited_frac if self.busy_s > 1.0 else 1.0)
        if (side, layout) not in self.shapes:
            self.shapes.add((side, layout))
            self.sides += [side] if side not in self.sides else []
            self.now_s += self.cold_s
        if (side, layout) != self.last:
            self.last, self.busy_s = (side, layout), 0.0
        self.now_s += 2.0 * side**3 / rate
        self.busy_s += 2.0 * side**3 / rate

    def synchronize(self):
        self.now_s += 2e-5

    def best(self, device=CPU, dtype="fp32", budget_s=100.0):
        found = rates.product_rates(device, adapter=self, dtype=dtype, budget_s=budget_s)
        return max(found.values(), default=None)


H100 = replace(GPU, type="meta", index=0, name="NVIDIA H100 80GB HBM3", memory_bytes=80 * 2**30)
H100_RATES = {
    torch.bfloat16: {1024: 200e12, 2048: 480e12, 4096: 610e12, 8192: 720e12, 16384: 705e12},
    torch.float32: dict.fromkeys((1024, 2048, 4096, 8192, 16384), 50e12),
}


def measure_h100(monkeypatch, clock):
    """A whole roof of a pretended H100 in fp32 and bf16, copy included."""
    monkeypatch.setattr(roof, "find", lambda label: H100)
    monkeypatch.setattr(roof, "adapter_for", lambda label: clock)
    monkeypatch.setattr(roof, "copy_rate", lambda *_, **__: 3e12)
    return roof.measure_roof("meta:0", dtypes=["fp32", "bf16"])


def test_the_roof_of_an_h100_is_that_of_its_large_products(monkeypatch):
    def rate(side, layout):
        return H100_RATES[clock.dtype][side] * (1.02 if layout == "NT" else 1.0)

    clock = FakeProducts(monkeypatch, rate)
    made = measure_h100(monkeypatch, clock)
    assert made.flops_per_s["bf16"] == pytest.approx(720e12 * 1.02, rel=0.01)
    assert made.flops_per_s["fp32"] == pytest.approx(50e12 * 1.02, rel=0.01)
    assert set(made.tried["bf16"]) >= {"8192 NN", "8192 NT", "16384 NN", "16384 NT", "4096 NN"}
    assert not [shape for shape in made.tried["bf16"] if shape.startswith(("2048", "1024"))]
    assert "; 8192 NT of 8192 NN, 8192 NT, 16384" in made.source("bf16")
    assert clock.now_s <= 7.5  # half a second of the eight is for the copy


def test_a_power_limit_shows_in_the_sustained_rate(monkeypatch):
    clock = FakeProducts(monkeypatch, lambda side, layout: H100_RATES[torch.bfloat16][side])
    clock.limited_frac = 0.9
    made = measure_h100(monkeypatch, clock)
    assert made.sustained_flops_per_s["bf16"] == pytest.approx(0.9 * 720e12, rel=0.01)
    assert made.flops_per_s["bf16"] == pytest.approx(720e12, rel=0.01)


def test_a_slow_accelerator_keeps_within_its_budget(monkeypatch):
    clock = FakeProducts(monkeypatch, lambda side, layout: 3e10)
    assert clock.best(H100, budget_s=1.5) == pytest.approx(3e10, rel=0.01)
    assert clock.sides == [1024]
    assert clock.now_s < 1.5 + 4 * 0.072 + 0.03  # the first calls come before the budget


def test_the_best_shape_counts_at_two_flops_per_multiply_add(monkeypatch):
    speeds = {512: 1e12, 1024: 2e12, 2048: 4e12, 4096: 3e12}
    clock = FakeProducts(monkeypatch, lambda side, layout: speeds[side])
    assert clock.best() == pytest.approx(4e12, rel=0.02)


def raise_at(side, error):
    def rate(asked, layout):
        if asked == side:
            raise error
        return 1e12

    return rate


def test_a_large_shape_without_memory_is_left_out(monkeypatch):
    error = torch.OutOfMemoryError("out of memory")
    assert FakeProducts(monkeypatch, raise_at(4096, error)).best() == pytest.approx(1e12, rel=0.02)


def test_shapes_that_cannot_be_repeated_in_time_are_left_out(monkeypatch):
    clock = FakeProducts(monkeypatch, lambda side, layout: 1e10)
    assert clock.best(budget_s=3.0) == pytest.approx(1e10, rel=0.01)
    assert clock.sides == [512, 1024]


def test_shapes_that_would_fill_the_memory_are_left_out(monkeypatch):
    clock = FakeProducts(monkeypatch, lambda side, layout: 1e13)
    clock.best(replace(CPU, memory_free_bytes=110 * 2**20))
    assert clock.sides == [512, 1024]


def test_a_dtype_that_raises_has_no_roof(monkeypatch):
    error = NotImplementedError("addmm_impl_cpu_ for 'Half'")
    assert FakeProducts(monkeypatch, raise_at(512, error)).best(dtype="fp16") is None


def test_a_failure_after_the_first_shape_is_not_hidden(monkeypatch):
    clock = FakeProducts(monkeypatch, raise_at(1024, RuntimeError("device-side assert")))
    with pytest.raises(RuntimeError, match="device-side assert"):
        clock.best()


@pytest.mark.parametrize(("least_mib", "cache_mib", "copied_mib"), [(8, 1, 8), (1, 4, 32)])
def test_a_copy_of_eight_caches_counts_what_it_reads_and_what_it_writes(
    monkeypatch, least_mib, cache_mib, copied_mib
):
    monkeypatch.setattr(rates, "_COPY_BYTES", {"cpu": least_mib * 2**20})
    monkeypatch.setattr(rates, "largest_cache_bytes", lambda device: cache_mib * 2**20)
    monkeypatch.setattr(rates, "_call_s", lambda call, **_: 0.5)
    rate = rates.copy_rate(CPU, adapter=Adapter(), budget_s=1.0)
    assert rate == 2 * copied_mib * 2**20 / 0.5


def test_a_small_roof_of_this_cpu_is_plausible(monkeypatch):
    monkeypatch.setitem(rates.SIDES, "cpu", (128, 256))
    monkeypatch.setattr(rates, "_COPY_BYTES", {"cpu": 2**24})
    monkeypatch.setattr(rates, "largest_cache_bytes", lambda device: 0)
    made = roof.measure_roof("cpu", dtypes=["fp32", "tf32"], dtype_budget_s=0.3)
    assert 1e8 < made.flops_per_s["fp32"] < 1e14
    assert made.unsupported == ("tf32",)
    assert made.bytes_per_s is not None
    assert 1e8 < made.bytes_per_s < 1e13
    assert made.foreign_cpu_frac is None or 0 <= made.foreign_cpu_frac <= 1
    assert made.threads == torch.get_num_threads()
    assert made.torch_version == torch.__version__


def test_a_saved_roof_is_loaded_again_under_another_number_and_names_no_device(cache):
    saved = make_roof(GPU)
    path = roof.save_roof(saved)
    assert path is not None
    assert list(cache.iterdir()) == [path]
    assert path.suffix == ".json"
    assert roof.load_roof(GPU) == saved
    moved = roof.load_roof(replace(GPU, index=0))
    assert moved == structs.replace(saved, label="cuda:0")
    assert "secret" not in path.read_text() + path.name


def test_a_roof_belongs_to_one_device_torch_and_thread_count(cache, monkeypatch):
    roof.save_roof(make_roof(GPU))
    roof.save_roof(make_roof(CPU, threads=4))
    for num_threads, is_kept in ((4, True), (8, False)):
        monkeypatch.setattr(torch, "get_num_threads", lambda count=num_threads: count)
        assert (roof.load_roof(CPU) is not None) == is_kept
    for other in ({"uuid": "other"}, {"name": "NVIDIA H20"}):
        assert roof.load_roof(replace(GPU, **other)) is None
    monkeypatch.setattr(torch, "__version__", "2.11.0")
    assert roof.load_roof(GPU) is None


@pytest.mark.parametrize(
    "changed", [{"driver_version": "570.86"}, {"power_limit_w": 350.0}], ids=["driver", "power"]
)
def test_a_roof_belongs_to_one_driver_and_power_limit(cache, monkeypatch, changed):
    now = Baseline(driver_version="580.65", power_limit_w=700.0)
    telemetry = ReplayTelemetry(baseline=now)
    monkeypatch.setattr(roof, "open_telemetry", lambda device: telemetry)
    roof.save_roof(make_roof(GPU, driver_version="580.65", power_limit_w=700.0))
    assert roof.load_roof(GPU) is not None
    telemetry.recorded_baseline = replace(now, **changed)
    assert roof.load_roof(GPU) is None


def damage(text, how):
    document = json.loads(text)
    return {
        "empty": "",
        "cut": text[: len(text) // 2],
        "list": "[]",
        "binary": "\x00\x01",
        "missing": json.dumps({k: v for k, v in document.items() if k != "method"}),
        "zero": json.dumps({**document, "bytes_per_s": 0}),
        "text": json.dumps({**document, "flops_per_s": {"fp32": "fast"}}),
        "infinite": json.dumps({**document, "flops_per_s": {"fp32": float("inf")}}),
        "flag": json.dumps({**document, "flops_per_s": {"fp32": True}}),
        "name": json.dumps({**document, "name": 5}),
    }[how]


@pytest.mark.parametrize(
    "how",
    ["empty", "cut", "list", "binary", "missing", "zero", "text", "infinite", "flag", "name"],
)
def test_a_damaged_file_counts_as_missing_with_a_note(cache, caplog, how):
    path = roof.save_roof(make_roof(GPU))
    assert path is not None
    path.write_text(damage(path.read_text(), how))
    with caplog.at_level(logging.WARNING):
        assert roof.load_roof(GPU) is None
    assert "measured again" in caplog.text


def test_a_cache_that_cannot_be_written_is_told_and_survived(monkeypatch, tmp_path, caplog):
    (tmp_path / "gapbench").write_text("a file where the folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with caplog.at_level(logging.WARNING):
        assert roof.save_roof(make_roof(GPU)) is None
    assert "measured each time" in caplog.text


def test_a_processor_s_roof_from_a_busy_machine_is_not_kept(cache, caplog):
    with caplog.at_level(logging.WARNING):
        assert roof.save_roof(make_roof(CPU, foreign_cpu_frac=0.31)) is None
    assert "31 %" in caplog.text
    assert not cache.exists()
    assert roof.save_roof(make_roof(GPU, foreign_cpu_frac=0.31)) is not None
    assert roof.save_roof(make_roof(CPU, foreign_cpu_frac=None)) is not None


def test_a_relative_cache_folder_is_ignored(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "somewhere")
    assert roof.cache_folder() == Path.home() / ".cache" / "gapbench"


def pretend_measuring(monkeypatch):
    asked = []

    def measure_roof(label, *, dtypes):
        asked.append(list(dtypes))
        return make_roof(
            GPU,
            flops_per_s={dtype: 1e12 for dtype in dtypes if dtype != "tf32"},
            tried={dtype: {"8192 NN": 1e12} for dtype in dtypes if dtype != "tf32"},
            unsupported=("tf32",) if "tf32" in dtypes else (),
        )

    monkeypatch.setattr(roof, "measure_roof", measure_roof)
    return asked


def test_only_missing_dtypes_are_measured(cache, monkeypatch):
    asked = pretend_measuring(monkeypatch)
    roof.roof_for(GPU, dtypes=["fp32", "tf32"])
    roof.roof_for(GPU, dtypes=["fp32", "tf32", "bf16"])
    found = roof.roof_for(GPU, dtypes=["tf32", "bf16", "fp32"])
    assert asked == [["fp32", "tf32"], ["bf16"]]
    assert set(found.flops_per_s) == set(found.tried) == {"fp32", "bf16"}
    assert found.unsupported == ("tf32",)


def test_the_largest_cache_is_read_in_binary_kilobytes(tmp_path):
    for number, text in enumerate(("32K\n", "32768K\n", "broken\n")):
        folder = tmp_path / f"index{number}"
        folder.mkdir()
        (folder / "size").write_text(text)
    assert largest_cache_bytes(CPU, root=tmp_path) == 32 * 2**20
    assert largest_cache_bytes(CPU, root=tmp_path / "nowhere") == 0

"""Rates are medians of synchronised batches, and a roof is kept for the device it belongs to."""

import json
import logging
import os
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from msgspec import structs

from bench.core.nouns import Device
from bench.devices.telemetry.common import Baseline
from bench.devices.torch import rates, roof
from bench.devices.torch.adapter import Adapter
from tests.devices.recorded_drivers import make_tree

MIB = 2**20
GPU = Device(
    type="cuda", index=1, name="H200", vendor="nvidia", stack="CUDA 13.0", memory_bytes=140 * 2**30
)
GPU = replace(GPU, uuid="1234-secret")
CPU = replace(GPU, type="cpu", index=0, vendor="amd", memory_bytes=64 * 2**30, uuid=None)
H100 = replace(GPU, type="meta", index=0, memory_bytes=80 * 2**30)


@pytest.fixture
def cache(monkeypatch, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "gapbench"


def make_roof(device, **changes):
    identity = {name: getattr(device, name) for name in ("type", "label", "name")}
    made = roof.Roof(
        **identity,
        uuid_hash=roof.hashed_uuid(device),
        torch_version=str(torch.__version__),
        **dict.fromkeys(("threads", "driver_version", "power_limit_w")),
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


# Each batch is 25 calls of 2 ms after 30 or so of warm-up.
@pytest.mark.parametrize(
    ("duration_s", "odd_s", "budget_s", "most_calls"),
    [
        (0.002, {}, 8.0, 1000),
        (0.002, {0: 0.5}, 8.0, 1000),
        (0.002, {60: 1.0, 90: 0.0}, 8.0, 1000),
        (30.0, {}, 1.0, 3),
    ],
)
def test_neither_a_slow_first_call_nor_odd_repeats_count(
    monkeypatch, duration_s, odd_s, budget_s, most_calls
):
    """A clock that only work moves. A batch is synchronised at both ends and not between."""
    times_s, adapter = [0.0], Mock()
    monkeypatch.setattr(rates.time, "perf_counter", lambda: times_s[-1])

    def call():
        times_s.append(times_s[-1] + odd_s.get(len(times_s) - 1, duration_s))

    timed = rates.Timed(device=CPU, adapter=adapter)
    limits = {"timed": timed, "budget_s": budget_s, "warmup_s": 0.05}
    assert rates._call_s(lambda: call, **limits) == pytest.approx(duration_s, rel=1e-9)
    num_calls = len(times_s) - 1
    assert num_calls <= most_calls

    def make_slowly():
        times_s.append(times_s[-1] + budget_s)
        return call

    # What is allocated for the call is paid from the budget.
    rates._call_s(make_slowly, **limits)
    assert len(times_s) - 1 - num_calls < 80
    num_calls = len(times_s) - 1
    adapter.reset_mock()
    batch_s = 40 * rates._timed_s(call, adapter=adapter, num_calls=40)
    assert batch_s == pytest.approx(times_s[-1] - times_s[num_calls])
    assert len(times_s) - 1 == num_calls + 40
    assert adapter.synchronize.call_count == 2


class FakeProducts:
    """torch.mm in the time that `speeds` says, by side; the first call of a shape takes longer.

    Matrices on the meta device take no memory. An exception among the speeds is raised.
    """

    label = "meta:0"

    def __init__(self, monkeypatch, speeds, *, limited_frac=1.0):
        self.now_s, self.busy_s, self.speeds, self.limited_frac = 0.0, 0.0, speeds, limited_frac
        self.shapes, self.last = [], None
        monkeypatch.setattr(rates.time, "perf_counter", lambda: self.now_s)
        monkeypatch.setattr(rates.torch, "mm", self.mm)

    def mm(self, left, right, *, out):
        shape = left.shape[0], "NN" if right.is_contiguous() else "NT"
        speeds = self.speeds.get(left.dtype, self.speeds)
        speed = speeds.get(shape[0], speeds.get("any"))
        if isinstance(speed, Exception):
            raise speed
        if shape not in self.shapes:
            self.shapes.append(shape)
            self.now_s += 0.03
        if shape != self.last:
            self.last, self.busy_s = shape, 0.0
        speed *= 1.02 if shape[1] == "NT" else 1.0
        duration_s = 2.0 * shape[0] ** 3 / speed
        duration_s /= self.limited_frac if self.busy_s > 1.0 else 1.0
        self.now_s += duration_s
        self.busy_s += duration_s

    def synchronize(self):
        self.now_s += 2e-5


H100_SPEEDS = {
    torch.bfloat16: {1024: 200e12, 2048: 480e12, 4096: 610e12, 8192: 720e12, 16384: 705e12},
    torch.float32: {"any": 50e12},
}


@pytest.mark.parametrize("limited_frac", [1.0, 0.9])
def test_the_roof_of_an_h100_is_that_of_its_large_products(monkeypatch, limited_frac):
    """The copy is left out. A power limit shows in the sustained rate alone."""
    clock = FakeProducts(monkeypatch, H100_SPEEDS, limited_frac=limited_frac)
    monkeypatch.setattr(roof, "find", lambda label: H100)
    monkeypatch.setattr(roof, "adapter_for", lambda label: clock)
    monkeypatch.setattr(roof, "copy_rate", lambda *_, **__: 3e12)
    made = roof.measure_roof("meta:0", dtypes=["fp32", "bf16"])
    for dtype, best in (("bf16", 720e12 * 1.02), ("fp32", 50e12 * 1.02)):
        assert made.flops_per_s[dtype] == pytest.approx(best, rel=0.01)
        assert made.sustained_flops_per_s[dtype] == pytest.approx(limited_frac * best, rel=0.01)
    assert set(made.tried["bf16"]) >= {"8192 NN", "8192 NT", "16384 NN", "16384 NT", "4096 NN"}
    assert not [shape for shape in made.tried["bf16"] if shape.startswith(("2048", "1024"))]
    assert "; 8192 NT of 8192 NN, 8192 NT, 16384" in made.source("bf16")
    assert clock.now_s <= 7.5  # half a second of the eight is for the copy


@pytest.mark.parametrize(
    ("speeds", "device", "options", "best", "sides"),
    [
        # Two FLOP for a multiply-add, of the best shape.
        ({512: 1e12, 1024: 2e12, 2048: 4e12, 4096: 3e12}, CPU, {}, 4e12, 4),
        # What the budget does not allow to be repeated, and what would fill the memory.
        ({"any": 3e10}, H100, {"budget_s": 1.5}, 3e10, 1),
        ({"any": 1e10}, CPU, {"budget_s": 3.0}, 1e10, 2),
        ({"any": 1e13}, replace(CPU, memory_free_bytes=110 * MIB), {}, 1e13, 2),
        # Sides below one that is slower than a larger one; the smallest is the first guess.
        (H100_SPEEDS, H100, {"dtype": "bf16"}, 720e12 * 1.02, 4),
        # What has no memory or no kernel. A failure after the first shape is not hidden.
        ({"any": 1e12, 4096: torch.OutOfMemoryError("out of memory")}, CPU, {}, 1e12, 3),
        ({512: NotImplementedError("addmm for 'Half'")}, CPU, {"dtype": "fp16"}, None, 0),
        ({"any": 1e12, 1024: RuntimeError("device-side assert")}, CPU, {}, "device-side assert", 1),
    ],
)
def test_shapes_that_do_not_fit_are_left_out(monkeypatch, speeds, device, options, best, sides):
    clock = FakeProducts(monkeypatch, speeds)
    budget_s = options.get("budget_s", 100.0)
    timed = rates.Timed(device=device, adapter=clock, dtype=options.get("dtype", "fp32"))
    if isinstance(best, str):
        with pytest.raises(RuntimeError, match=best):
            rates.product_rates(timed, budget_s=budget_s)
        return
    found = rates.product_rates(timed, budget_s=budget_s)
    assert max(found.values(), default=None) == (best and pytest.approx(best, rel=0.02))
    assert len({side for side, _ in clock.shapes}) == sides
    assert clock.now_s < budget_s + 0.32  # the first calls come before the budget


@pytest.mark.parametrize(
    ("convolution", "best"),
    [
        (339e9, 339e9),
        (150e9, 205e9),
        # A dtype without kernels of its own is not waited for, and one that is refused not missed.
        (2e8, 205e9),
        (NotImplementedError("conv3d for 'Half'"), 205e9),
    ],
)
def test_a_processors_roof_is_the_faster_of_products_and_convolutions(
    monkeypatch, convolution, best
):
    clock = FakeProducts(monkeypatch, {"any": 205e9})

    def conv3d(values, weights, *, padding):
        if isinstance(convolution, Exception):
            raise convolution
        assert (padding, weights.shape[2:]) == (1, (3, 3, 3))
        assert torch.is_inference_mode_enabled()
        assert torch.backends.cuda.matmul.fp32_precision == "ieee"
        clock.now_s += 2.0 * values.numel() * weights[0].numel() / convolution

    monkeypatch.setattr(rates.torch, "conv3d", conv3d)
    monkeypatch.setattr(roof, "find", lambda label: CPU)
    monkeypatch.setattr(roof, "adapter_for", lambda label: clock)
    monkeypatch.setattr(roof, "copy_rate", lambda *_, **__: 3e10)
    made = roof.measure_roof("cpu", dtypes=["fp32"])
    assert made.flops_per_s["fp32"] == pytest.approx(best, rel=0.01)
    assert clock.now_s < 5.0
    shapes = "32 3x3x3 of 512 NN, 1024 NN, 2048 NN, 16 3x3x3, 32 3x3x3;"
    assert (shapes in made.source("fp32")) == (best == convolution)


def test_a_copy_of_eight_caches_counts_what_it_reads_and_what_it_writes(monkeypatch, tmp_path):
    sizes = ("32K\n", "32768K\n", "broken\n")
    make_tree(tmp_path, {f"index{number}/size": text for number, text in enumerate(sizes)})
    assert rates.largest_cache_bytes(CPU, root=tmp_path) == 32 * MIB
    assert rates.largest_cache_bytes(CPU, root=tmp_path / "nowhere") == 0
    call_s, cache = Mock(return_value=0.5), Mock()
    monkeypatch.setattr(rates, "largest_cache_bytes", cache)
    monkeypatch.setattr(rates, "_call_s", call_s)
    for least_mib, cache.return_value, copied_mib in ((8, MIB, 8), (1, 4 * MIB, 32)):
        monkeypatch.setattr(rates, "_COPY_BYTES", {"cpu": least_mib * MIB})
        rate = rates.copy_rate(rates.Timed(device=CPU, adapter=Adapter()), budget_s=1.0)
        copied = call_s.call_args.args[0]()()
        assert rate == 2 * copied.nbytes / 0.5 == 2 * copied_mib * MIB / 0.5


def test_a_small_roof_of_this_cpu_is_plausible(monkeypatch):
    monkeypatch.setitem(rates.SIDES, "cpu", (128, 256))
    monkeypatch.setattr(rates, "_COPY_BYTES", {"cpu": 2**24})
    monkeypatch.setattr(rates, "largest_cache_bytes", lambda device: 0)
    made = roof.measure_roof("cpu", dtypes=["fp32", "tf32"], dtype_budget_s=0.3)
    assert 1e7 < made.flops_per_s["fp32"] < 1e14  # beside other programs, too
    assert 1e8 < made.bytes_per_s < 1e13
    assert made.foreign_cpu_frac is None or 0 <= made.foreign_cpu_frac <= 1
    assert (made.unsupported, made.threads) == (("tf32",), torch.get_num_threads())
    assert made.torch_version == torch.__version__


def test_a_roof_belongs_to_one_device_torch_and_thread_count(cache, monkeypatch):
    """The device's number may change, and its identifier is not shown."""
    saved = make_roof(GPU)
    path = roof.save_roof(saved)
    assert list(cache.glob("*.json")) == list(cache.iterdir()) == [path]
    assert "secret" not in path.read_text() + path.name
    assert roof.load_roof(GPU) == saved
    assert roof.load_roof(replace(GPU, index=0)) == structs.replace(saved, label="cuda:0")
    roof.save_roof(make_roof(CPU, threads=4))
    for num_threads, is_kept in ((4, True), (8, False)):
        monkeypatch.setattr(torch, "get_num_threads", lambda count=num_threads: count)
        assert (roof.load_roof(CPU) is not None) == is_kept
    for other in ({"uuid": "other"}, {"name": "NVIDIA H20"}):
        assert roof.load_roof(replace(GPU, **other)) is None
    now = before = Baseline(driver_version="580.65", power_limit_w=700.0)
    monkeypatch.setattr(roof, "baseline_of", lambda device: now)
    roof.save_roof(make_roof(GPU, driver_version="580.65", power_limit_w=700.0))
    assert roof.load_roof(GPU) is not None
    for changed in ({"driver_version": "570.86"}, {"power_limit_w": 350.0}):
        now = replace(before, **changed)
        assert roof.load_roof(GPU) is None
    now = before
    with monkeypatch.context() as patch:
        patch.setitem(rates.SIDES, "accelerator", (1024, 4096))
        assert roof.load_roof(GPU) is None, "other sides were tried"
    monkeypatch.setattr(torch, "__version__", "2.11.0")
    assert roof.load_roof(GPU) is None


def test_a_damaged_file_counts_as_missing_with_a_note(cache, caplog):
    path = roof.save_roof(make_roof(GPU))
    text = path.read_text()
    document = json.loads(text)
    rates_of = ({"fp32": value} for value in ("fast", float("inf"), True))
    changes = [{"bytes_per_s": 0}, {"name": 5}, *({"flops_per_s": found} for found in rates_of)]
    damaged = ["", text[: len(text) // 2], "[]", "\x00\x01"]
    damaged += [json.dumps({**document, **change}) for change in changes]
    damaged.append(json.dumps({k: v for k, v in document.items() if k != "method"}))
    for content in damaged:
        path.write_text(content)
        caplog.clear()
        assert roof.load_roof(GPU) is None, content
        assert "measured again" in caplog.text


def test_a_roof_that_cannot_or_must_not_be_kept_is_told(cache, caplog, monkeypatch):
    """A processor's roof from a busy machine is too low, and would stay so."""
    assert roof.save_roof(make_roof(CPU, foreign_cpu_frac=0.31)) is None
    assert "31 %" in caplog.text
    assert not cache.exists()
    assert roof.save_roof(make_roof(GPU, foreign_cpu_frac=0.31)) is not None
    assert roof.save_roof(make_roof(CPU, foreign_cpu_frac=None)) is not None
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", Mock(side_effect=OSError(28, "No space left on device")))
        assert roof.save_roof(make_roof(GPU)) is None
    assert "measured each time" in caplog.text
    # A relative folder is ignored.
    monkeypatch.setenv("XDG_CACHE_HOME", "somewhere")
    assert roof.cache_folder() == Path.home() / ".cache" / "gapbench"


def test_only_missing_dtypes_are_measured(cache, monkeypatch):
    asked = []

    def measure_roof(label, *, dtypes):
        asked.append(list(dtypes))
        right = [dtype for dtype in dtypes if dtype != "tf32"]
        return make_roof(
            GPU,
            flops_per_s=dict.fromkeys(right, 1e12),
            tried={dtype: {"8192 NN": 1e12} for dtype in right},
            unsupported=tuple(set(dtypes) - set(right)),
        )

    monkeypatch.setattr(roof, "measure_roof", measure_roof)
    roof.roof_for(GPU, dtypes=["fp32", "tf32"])
    roof.roof_for(GPU, dtypes=["fp32", "tf32", "bf16"])
    found = roof.roof_for(GPU, dtypes=["tf32", "bf16", "fp32"])
    assert asked == [["fp32", "tf32"], ["bf16"]]
    assert set(found.flops_per_s) == set(found.tried) == {"fp32", "bf16"}
    assert found.unsupported == ("tf32",)

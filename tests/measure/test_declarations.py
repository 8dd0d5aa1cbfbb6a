"""What an author declares, against what a step really runs."""

import ctypes
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bench.cli import main
from bench.devices.host.cpu import usable_cores
from bench.devices.torch import roof
from bench.measure.declarations import flops_problems, parameter_problems
from bench.measure.operator_count import OperatorCounter
from bench.measure.timing import validity
from bench.results.reader import read_rows
from tests.measure.trial_requests import request_of, result_of

DECLARED = Path(__file__).parent.parent / "workload_files" / "declared.py"


def declared(phase: str, **overrides: Any) -> tuple[list[str], str]:
    """Reasons and detail of a trial of the workload, without those of its smoke."""
    result = result_of(request_of(f"declared-{phase}", source=DECLARED, overrides=overrides))
    return [code for code in result.reasons if code != "smoke"], result.detail


def test_wrong_declarations_are_named_with_both_figures() -> None:
    for phase, shown in (("infer", "65.5 kFLOP"), ("train", "164 kFLOP")):
        assert declared(phase, times=1.0) == ([], ""), "honest"
        assert declared(phase, times=1.5)[0] == ["flops_unconfirmed"]
        for times in (1000.0, 0.01):
            codes, detail = declared(phase, times=times)
            assert codes == ["flops_disagree"]
            assert f"a step runs {shown} for each" in detail
    assert "flops_per_item declares 655 FLOP" in declared("infer", times=0.01)[1]
    # A step that cannot be counted is a reservation.
    codes, detail = declared("infer", refuses=True)
    said = "flops_per_item could not be checked: RuntimeError: found no compiled frames"
    assert (codes, detail) == (["flops_unconfirmed"], said)
    assert parameter_problems(1000, in_net=1010) == [], "a percent is let through"


def test_a_row_names_all_that_is_declared_wrongly_and_a_share_beyond_the_roof(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(torch, "get_num_threads", lambda: usable_cores())
    key = roof._key_of(roof.find("cpu"))
    low = roof.Roof(
        **{name: getattr(key, name) for name in roof.RoofKey.__struct_fields__},
        label="cpu",
        flops_per_s={"fp32": 1e4},
        sustained_flops_per_s={"fp32": 9e3},
        tried={"fp32": {"512 NN": 1e4}},
        unsupported=(),
        bytes_per_s=1e9,
        foreign_cpu_frac=0.0,
        method=roof.METHOD,
        measured_utc="2026-01-01T00:00:00Z",
    )
    assert roof.save_roof(low) is not None
    words = ["-w", f"{DECLARED}:infer", "--set", "more=500", "--set", "times=1000"]
    flags = ["--device", "cpu", "--profile", "smoke", "--quiet", "--out", str(tmp_path / "out")]
    assert main(["run", *words, *flags]) == 4
    (path,) = (tmp_path / "out").glob("*.csv")
    (row,) = read_rows(path)
    assert (row["status"], row["attempt"]) == ("INVALID", 1)
    assert (row["roof_flops_per_s"], row["roof_sustained_flops_per_s"]) == (1e4, 9e3)
    assert row["roof_source"] == low.source("fp32")
    wrong = {"over_roof", "parameters_disagree", "flops_disagree"}
    assert wrong <= set(str(row["reasons"]).split(";"))
    for said in (
        "num_parameters declares 33,524, the net has 33,024",
        "flops_per_item declares 65.5 MFLOP, a step runs 65.5 kFLOP for each",
        f"{100 * float(row['roof_frac'] or 0):,.0f} % of the measured roof",
    ):
        assert said in str(row["detail"])


def test_over_105_percent_of_the_roof_is_invalid_where_the_roof_bounds() -> None:
    for frac, is_accelerator, dtype, is_over in (
        (None, False, "fp32", False),
        (1.05, False, "fp32", False),
        (1.06, False, "fp32", True),
        (1.06, True, "bf16", True),
        # By Winograd's algorithm a convolution needs fewer operations than its formula has.
        (2.2, True, "fp32", False),
        (2.4, True, "fp32", True),
    ):
        found = validity.roof_problems(frac, is_accelerator=is_accelerator, dtype=dtype)
        assert [code for code, _ in found] == ["over_roof"] * is_over, (frac, dtype)


@torch.library.custom_op("declared::product", mutates_args=())
def product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """A kernel of somebody's own."""
    return left @ right


def custom(x: torch.Tensor) -> torch.Tensor:
    return product(x, x) * 2.0


def outside(x: torch.Tensor) -> torch.Tensor:
    """As a Triton or ctypes kernel does: it writes into memory that torch allocated."""
    written = torch.empty_like(x)
    ctypes.memmove(written.data_ptr(), x.data_ptr(), 4 * x.numel())
    return written * 2.0


def encoder(x: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(64, 2, dim_feedforward=64, batch_first=True).eval()
    with torch.inference_mode():
        return layer(x[None])


def recurrent(x: torch.Tensor) -> torch.Tensor:
    return nn.LSTM(64, 64)(x)[0]


def attention(x: torch.Tensor) -> torch.Tensor:
    heads = x.reshape(1, 1, 64, 64)
    return nn.functional.scaled_dot_product_attention(heads, heads, heads, is_causal=True)


def plain(x: torch.Tensor) -> torch.Tensor:
    filled = torch.empty_like(x)
    filled.copy_(x)
    other = torch.empty_like(x)
    torch.mm(filled, x, out=other)
    return other * 2.0


PRODUCT = 2.0 * 64**3


def test_only_what_no_convention_and_no_kernel_explains_is_invalid() -> None:
    x = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    agree, unconfirmed, disagree = [], ["flops_unconfirmed"], ["flops_disagree"]
    for step, flops, expected in (
        (plain, 1.05 * PRODUCT, agree),
        (plain, 1.5 * PRODUCT, unconfirmed),
        (plain, 2.5 * PRODUCT, disagree),
        (plain, PRODUCT / 3, unconfirmed),
        (plain, PRODUCT / 1000, disagree),
        (plain, 0.0, disagree),
        # What has no formula, or is no operator at all, makes no honest declaration INVALID.
        (custom, 100 * PRODUCT, unconfirmed),
        (outside, 100 * PRODUCT, unconfirmed),
        (encoder, 6 * PRODUCT, unconfirmed),
        (recurrent, 8 * PRODUCT, unconfirmed),
        # Half of a causal product is as right as the whole one.
        (attention, 2 * PRODUCT, agree),
        (attention, PRODUCT, unconfirmed),
        (attention, 5 * PRODUCT, disagree),
        # Elementwise: a sine is one operation here and twenty there.
        (torch.sin, 20.0 * 64**2, unconfirmed),
        (torch.sin, 1e4 * 64**2, disagree),
    ):
        counter = OperatorCounter()
        with counter:
            step(x)  # type: ignore[operator]
        found = flops_problems(flops, counter=counter, items=1)
        assert [code for code, _ in found] == expected, (step, flops, counter.uncounted)
        assert step is not custom or "for each beside declared::product, whose" in found[0][1]

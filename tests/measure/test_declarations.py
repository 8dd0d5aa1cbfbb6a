"""What an author declares, against what a step really runs."""

import ctypes
import json
from pathlib import Path

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
from bench.results.schema import Row

DECLARED = Path(__file__).parent.parent / "workload_files" / "declared.py"


def rows_of(*words: str, out: Path, code: int) -> dict[tuple[str, float], Row]:
    flags = ["--device", "cpu", "--profile", "smoke", "--quiet", "--out", str(out)]
    assert main(["run", "-w", *words, *flags]) == code
    (path,) = out.glob("*.csv")
    return {
        (str(row["workload"]), json.loads(str(row["params_json"]))["times"]): row
        for row in read_rows(path)
    }


def test_wrong_declarations_are_named_with_both_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    out = tmp_path / "out"
    rows = rows_of(
        str(DECLARED), "--set", "times=1,1.5,1000,0.01", "--set", "more=0", out=out, code=4
    )
    for phase, shown in (("infer", "65.5 kFLOP"), ("train", "164 kFLOP")):
        name = f"declared-{phase}"
        assert rows[name, 1.0]["status"] == "WARN", "honest"
        assert "disagree" not in str(rows[name, 1.0]["reasons"])
        assert rows[name, 1.0]["detail"] is None
        assert "flops_unconfirmed" in str(rows[name, 1.5]["reasons"])
        assert rows[name, 1.5]["status"] == "WARN"
        for times, declared in ((1000.0, "65.5 M"), (0.01, "655 ")):
            row = rows[name, times]
            assert (row["status"], row["attempt"]) == ("INVALID", 1)
            assert "flops_disagree" in str(row["reasons"]).split(";")
            if phase == "infer":
                assert f"flops_per_item declares {declared}FLOP" in str(row["detail"])
            assert f"a step runs {shown} for each" in str(row["detail"])


def test_parameters_beside_the_nets_and_a_share_beyond_the_roof_have_reasons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(torch, "get_num_threads", lambda: usable_cores())
    key = roof._key_of(roof.find("cpu"))
    fields = {name: getattr(key, name) for name in roof.RoofKey.__struct_fields__}
    low = roof.Roof(
        **fields,
        label="cpu",
        flops_per_s={"fp32": 1e4},
        sustained_flops_per_s={},
        tried={"fp32": {"512 NN": 1e4}},
        unsupported=(),
        bytes_per_s=1e9,
        foreign_cpu_frac=0.0,
        method=roof.METHOD,
        measured_utc="2026-01-01T00:00:00Z",
    )
    assert roof.save_roof(low) is not None
    words = (f"{DECLARED}:infer", "--set", "more=500")
    (row,) = rows_of(*words, out=tmp_path / "out", code=4).values()
    assert (row["status"], row["attempt"]) == ("INVALID", 1)
    assert {"over_roof", "parameters_disagree"} <= set(str(row["reasons"]).split(";"))
    assert "num_parameters declares 33,524, the net has 33,024" in str(row["detail"])
    assert f"{100 * float(row['roof_frac'] or 0):,.0f} % of the measured roof" in str(row["detail"])


def test_a_step_that_cannot_be_counted_is_a_reservation_and_costs_no_row(tmp_path: Path) -> None:
    words = (f"{DECLARED}:infer", "--set", "refuses=true")
    (row,) = rows_of(*words, out=tmp_path / "out", code=0).values()
    assert "flops_unconfirmed" in str(row["reasons"]).split(";")
    said = "flops_per_item could not be checked: RuntimeError: found no compiled frames"
    assert (row["status"], row["detail"]) == ("WARN", said)


@pytest.mark.parametrize(
    ("frac", "is_accelerator", "dtype", "is_over"),
    [
        (None, False, "fp32", False),
        (1.05, False, "fp32", False),
        (1.06, False, "fp32", True),
        (1.06, True, "bf16", True),
        # By Winograd's algorithm a convolution needs fewer operations than its formula has.
        (2.2, True, "fp32", False),
        (2.4, True, "fp32", True),
        (232.0, True, "fp32", True),
    ],
)
def test_over_105_percent_of_the_roof_is_invalid_where_the_roof_bounds(
    frac: float | None, is_accelerator: bool, dtype: str, is_over: bool
) -> None:
    found = validity.roof_problems(frac, is_accelerator=is_accelerator, dtype=dtype)
    assert [code for code, _ in found] == (["over_roof"] if is_over else [])
    assert not is_over or validity.status_of(["over_roof"]) == "INVALID"


def test_parameters_may_differ_by_a_percent() -> None:
    assert parameter_problems(1000, in_net=1010) == []
    ((code, words),) = parameter_problems(1_000_000, in_net=1_000)
    assert (code, words) == (
        "parameters_disagree",
        "num_parameters declares 1,000,000, the net has 1,000",
    )


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


@pytest.mark.parametrize(
    ("step", "declared", "code"),
    [
        (plain, PRODUCT, None),
        (plain, 1.05 * PRODUCT, None),
        (plain, 1.5 * PRODUCT, "flops_unconfirmed"),
        (plain, 2.5 * PRODUCT, "flops_disagree"),
        (plain, PRODUCT / 3, "flops_unconfirmed"),
        (plain, PRODUCT / 1000, "flops_disagree"),
        (plain, 0.0, "flops_disagree"),
        # What has no formula, or is no operator at all, makes no honest declaration INVALID.
        (custom, PRODUCT, "flops_unconfirmed"),
        (outside, PRODUCT, "flops_unconfirmed"),
        (encoder, 6 * PRODUCT, "flops_unconfirmed"),
        (recurrent, 8 * PRODUCT, "flops_unconfirmed"),
        # Half of a causal product is as right as the whole one.
        (attention, 2 * PRODUCT, None),
        (attention, PRODUCT, "flops_unconfirmed"),
        (attention, 5 * PRODUCT, "flops_disagree"),
        # Elementwise: a sine is one operation here and twenty there.
        (torch.sin, 20.0 * 64**2, "flops_unconfirmed"),
        (torch.sin, 1e4 * 64**2, "flops_disagree"),
    ],
)
def test_only_what_no_convention_and_no_kernel_explains_is_invalid(
    step: object, declared: float, code: str | None
) -> None:
    x = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    counter = OperatorCounter()
    with counter:
        step(x)  # type: ignore[operator]
    found = flops_problems(declared, counter=counter, items=1)
    assert [one for one, _ in found] == ([code] if code else []), (found, counter.uncounted)

"""TF32 is on for tf32 alone, in the switches that every version of torch reads."""

import warnings
from collections.abc import Iterator

import pytest
import torch

from bench.measure.engine.precision import set_matmul_precision


@pytest.fixture(autouse=True)
def as_found() -> Iterator[None]:
    yield
    set_matmul_precision("fp32")


@pytest.mark.parametrize("dtype", ["tf32", "fp32", "bf16"])
def test_older_and_newer_switches_agree(dtype: str) -> None:
    set_matmul_precision("tf32" if dtype != "tf32" else "fp32")
    set_matmul_precision(dtype)  # type: ignore[arg-type]
    is_tf32 = dtype == "tf32"
    mode = "tf32" if is_tf32 else "ieee"
    # inductor of torch 2.10 reads the older ones, which raise where the newer ones disagree.
    assert torch.get_float32_matmul_precision() == ("high" if is_tf32 else "highest")
    assert torch.backends.cuda.matmul.allow_tf32 is is_tf32
    assert torch.backends.cudnn.allow_tf32 is is_tf32
    assert torch.backends.cuda.matmul.fp32_precision == mode
    assert torch.backends.cudnn.conv.fp32_precision == mode  # type: ignore[attr-defined]
    assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"  # type: ignore[attr-defined]


def test_advice_of_torch_to_turn_tf32_on_fails_no_test_and_a_warning_of_ours_does() -> None:
    for module in ("torch._inductor.compile_fx", "torch"):
        with warnings.catch_warnings(record=True) as seen:
            warnings.warn_explicit("use TF32", UserWarning, "compile_fx.py", 1, module=module)
        assert len(seen) == 1
    for module in ("bench.measure.engine.steps", "torchless"):
        with pytest.raises(UserWarning):
            warnings.warn_explicit("mend me", UserWarning, "steps.py", 1, module=module)

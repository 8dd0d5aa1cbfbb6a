"""What may be asked of a layout and of a mitigation; what cannot be meant is one clear line."""

from dataclasses import replace

import pytest

from bench.core.errors import UsageError
from bench.core.nouns import Layout
from bench.parallel.mitigations import COMBINED, NAMES, Mitigation, parse_mitigation
from bench.parallel.support import check_layout
from bench.workload import Phase, Workload
from workloads import imaging, llm

TINY = llm.Workload(**llm.Workload.sizes["tiny"])
LARGE = llm.Workload()
IMAGING = imaging.Workload(**imaging.Workload.sizes["tiny"])
TRAIN, PREFILL, DECODE = TINY.phases
PATCHES, VOLUMES = IMAGING.phases

DDP = Layout(strategy="ddp", data=8)
FSDP = Layout(strategy="fsdp", data=8)
TP = Layout(strategy="tp", tensor=2)
PP = Layout(strategy="pp", pipeline=2, mode="simulated")


def test_what_can_be_run_is_let_through() -> None:
    for layout in (Layout(), Layout(grad_accum=4), DDP, FSDP, TP, replace(TP, data=4), PP,
                   replace(DDP, mitigate="diloco-4", grad_accum=2),
                   replace(TP, data=2, mitigate="powersgd-4")):  # fmt: skip
        check_layout(TINY, TRAIN, layout)
    check_layout(TINY, PREFILL, TP)
    check_layout(TINY, DECODE, FSDP)
    check_layout(LARGE, TRAIN, replace(TP, tensor=8))
    check_layout(IMAGING, PATCHES, DDP)
    check_layout(IMAGING, VOLUMES, FSDP)


@pytest.mark.parametrize(
    ("workload", "phase", "layout", "words"),
    [
        (TINY, TRAIN, replace(TP, tensor=4), "kv_heads 2 of llm .* possible here: 2$"),
        (LARGE, TRAIN, replace(TP, tensor=6), "possible here: 4 or 8$"),
        (LARGE, TRAIN, replace(TP, tensor=64), "possible here: 8$"),
        (IMAGING, PATCHES, TP, "workload imaging has no plan for tensor parallelism"),
        (TINY, PREFILL, DDP, "communicate nothing in prefill"),
        (TINY, PREFILL, replace(TP, data=2), "communicate nothing"),
        (TINY, PREFILL, Layout(grad_accum=2), "--grad-accum is for training"),
        (TINY, DECODE, replace(TP, mitigate="fp16"), "--mitigate is for training"),
        (TINY, PREFILL, PP, "for training steps"),
        (TINY, TRAIN, replace(PP, mode="real"), "--mode simulated"),
        (TINY, TRAIN, replace(PP, pipeline=64), "layers"),
        (IMAGING, PATCHES, PP, "pipeline"),
        (TINY, TRAIN, Layout(data=2), "need --parallel"),
        (TINY, TRAIN, Layout(strategy="ddp", tensor=2), "divides the batch alone"),
        (TINY, TRAIN, replace(TP, pipeline=2), "has no stages"),
        (TINY, TRAIN, replace(FSDP, mitigate="fp16"), "fsdp has shards"),
        (TINY, TRAIN, replace(TP, mitigate="fp16"), "with --dp 2"),
        (TINY, TRAIN, Layout(mitigate="fp16"), "use --parallel ddp"),
        (TINY, TRAIN, replace(PP, mitigate="fp16"), "not simulated for stages"),
        (TINY, TRAIN, replace(DDP, mitigate="magic"), "'magic' is not one of"),
        (TINY, TRAIN, replace(DDP, grad_accum=0), "--grad-accum 0"),
        (TINY, TRAIN, replace(DDP, bucket_bytes=0), "--bucket-mib"),
    ],
)
def test_what_cannot_be_meant_is_one_clear_line(
    workload: Workload, phase: Phase, layout: Layout, words: str
) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        check_layout(workload, phase, layout)
    assert "\n" not in str(caught.value)


def test_a_compiled_net_has_no_buckets_below_a_mebibyte() -> None:
    check_layout(TINY, TRAIN, replace(DDP, bucket_bytes=2**20), is_compiled=True)
    small = replace(DDP, bucket_bytes=2**19)
    check_layout(TINY, TRAIN, small)
    with pytest.raises(UsageError, match="at least 1 MiB"):
        check_layout(TINY, TRAIN, small, is_compiled=True)


def test_names_of_mitigations_are_read() -> None:
    meanings = {
        "": Mitigation(),
        "fp16": Mitigation(half="fp16"),
        "BF16": Mitigation(half="bf16"),
        "powersgd-4": Mitigation(powersgd_rank=4),
        "powersgd-1+fp16": Mitigation(powersgd_rank=1, half="fp16"),
        "bf16 + powersgd-1": Mitigation(powersgd_rank=1, half="bf16"),
        "postlocalsgd-2": Mitigation(averaging="postlocalsgd", period_steps=2),
        "diloco-500+bf16": Mitigation(averaging="diloco", period_steps=500, half="bf16"),
        "powersgd-1000000": Mitigation(powersgd_rank=1_000_000),
    }
    for text, meaning in meanings.items():
        assert parse_mitigation(text) == meaning
    for name in [*NAMES, *COMBINED]:
        filled = name.replace("-R", "-4").replace("-H", "-8")
        assert not parse_mitigation(filled).is_none


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["powersgd"], "powersgd-4"),
        (["powersgd-0"], "from 1"),
        (["diloco-1"], "from 2"),
        (["diloco-x", "diloco-²"], "whole number"),
        (["powersgd-1000001"], "to 1000000"),
        (["dilocco-4"], "did you mean 'diloco-H'"),
        (["fp16+bf16", "fp16+fp16", "powersgd-2+diloco-4", "powersgd-2+fp16+diloco-4"],
         "do not go together"),
        (["postlocalsgd-4+fp16"], "round"),
        (["fp16+"], "not one of"),
    ],
)  # fmt: skip
def test_a_wrong_mitigation_is_one_clear_line(texts: list[str], words: str) -> None:
    for text in texts:
        with pytest.raises(UsageError, match=words) as caught:
            parse_mitigation(text)
        assert "\n" not in str(caught.value)

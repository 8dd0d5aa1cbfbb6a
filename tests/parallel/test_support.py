import dataclasses

import pytest

from bench.core.errors import UsageError
from bench.core.nouns import Layout
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


@pytest.mark.parametrize(
    ("workload", "phase", "layout"),
    [
        (TINY, TRAIN, Layout()),
        (TINY, TRAIN, Layout(grad_accum=4)),
        (TINY, TRAIN, DDP),
        (TINY, TRAIN, FSDP),
        (TINY, TRAIN, TP),
        (TINY, TRAIN, dataclasses.replace(TP, data=4)),
        (TINY, PREFILL, TP),
        (TINY, DECODE, FSDP),
        (LARGE, TRAIN, Layout(strategy="tp", tensor=8)),
        (TINY, TRAIN, PP),
        (IMAGING, PATCHES, DDP),
        (IMAGING, VOLUMES, FSDP),
        (TINY, TRAIN, dataclasses.replace(DDP, mitigate="diloco-4", grad_accum=2)),
        (TINY, TRAIN, dataclasses.replace(TP, data=2, mitigate="powersgd-4")),
    ],
)
def test_what_can_be_run_is_let_through(workload: Workload, phase: Phase, layout: Layout) -> None:
    check_layout(workload, phase, layout)


@pytest.mark.parametrize(
    ("workload", "phase", "layout", "words"),
    [
        (TINY, TRAIN, dataclasses.replace(TP, tensor=4), "kv_heads 2 of llm"),
        (TINY, TRAIN, dataclasses.replace(TP, tensor=4), "possible here: 2"),
        (LARGE, TRAIN, dataclasses.replace(TP, tensor=6), "possible here: 4 or 8"),
        (LARGE, TRAIN, dataclasses.replace(TP, tensor=64), "possible here: 8"),
        (IMAGING, PATCHES, TP, "workload imaging has no plan for tensor parallelism"),
        (TINY, PREFILL, DDP, "communicate nothing in prefill"),
        (TINY, PREFILL, dataclasses.replace(TP, data=2), "communicate nothing"),
        (TINY, PREFILL, Layout(grad_accum=2), "--grad-accum is for training"),
        (TINY, DECODE, dataclasses.replace(TP, mitigate="fp16"), "--mitigate is for training"),
        (TINY, PREFILL, PP, "for training steps"),
        (TINY, TRAIN, dataclasses.replace(PP, mode="real"), "--mode simulated"),
        (TINY, TRAIN, dataclasses.replace(PP, pipeline=64), "layers"),
        (IMAGING, PATCHES, PP, "pipeline"),
        (TINY, TRAIN, Layout(data=2), "need --parallel"),
        (TINY, TRAIN, Layout(strategy="ddp", tensor=2), "divides the batch alone"),
        (TINY, TRAIN, Layout(strategy="tp", tensor=2, pipeline=2), "has no stages"),
        (TINY, TRAIN, dataclasses.replace(FSDP, mitigate="fp16"), "fsdp has shards"),
        (TINY, TRAIN, dataclasses.replace(TP, mitigate="fp16"), "with --dp 2"),
        (TINY, TRAIN, Layout(mitigate="fp16"), "use --parallel ddp"),
        (TINY, TRAIN, dataclasses.replace(PP, mitigate="fp16"), "not simulated for stages"),
        (TINY, TRAIN, dataclasses.replace(DDP, mitigate="magic"), "'magic' is not one of"),
        (TINY, TRAIN, dataclasses.replace(DDP, grad_accum=0), "--grad-accum 0"),
        (TINY, TRAIN, dataclasses.replace(DDP, bucket_bytes=0), "--bucket-mib"),
    ],
)
def test_what_cannot_be_meant_is_one_clear_line(
    workload: Workload, phase: Phase, layout: Layout, words: str
) -> None:
    with pytest.raises(UsageError) as caught:
        check_layout(workload, phase, layout)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_compiled_net_has_no_buckets_below_a_mebibyte() -> None:
    small = dataclasses.replace(DDP, bucket_bytes=2**19)
    check_layout(TINY, TRAIN, small)
    with pytest.raises(UsageError, match="at least 1 MiB"):
        check_layout(TINY, TRAIN, small, is_compiled=True)

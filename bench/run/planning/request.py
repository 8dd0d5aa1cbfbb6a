"""The flags of `bench run`: each declared once, with its help, its group and how it is read.

The command line makes its options from these fields, recipes fill them in, and `command_words`
prints them back. A field that `Config` has under the same name reaches the trial as it is.
Lists are sweeps; None and empty are not given.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.core.nouns import Config
from bench.run.planning.flags import (
    DURATION,
    INTEGER,
    INTEGERS,
    LINKS,
    NAMES,
    NUMBER,
    SETTINGS,
    SWITCH,
    TEXT,
    TEXTS,
    Flag,
    flag,
)

MIB = 2**20
WORK = "What is run"
DEVICE = "On which device"
LAYOUT = "Several devices, and the link between them"
EFFORT = "How often and how long"


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """What `bench run` is asked to do."""

    workloads: tuple[str, ...] = flag(
        "--workload -w",
        NAMES,
        WORK,
        "all, a name such as imaging-train or imaging, a pattern, or a file ./mine.py",
    )
    sizes: tuple[str, ...] = flag(
        "--size",
        TEXTS,
        WORK,
        "tiny, small, base, large; a comma sweeps; default: largest that fits",
    )
    batches: tuple[int, ...] = flag("--batch", INTEGERS, WORK, "samples per step; a comma sweeps")
    dtypes: tuple[str, ...] = flag(
        "--dtype", TEXTS, WORK, "fp32, tf32, bf16, fp16; a comma sweeps; default: device's"
    )
    compile: bool = flag("--compile", SWITCH, WORK, "use torch.compile")
    compile_mode: str | None = flag(
        "--compile-mode",
        TEXT,
        WORK,
        "with --compile: reduce-overhead or max-autotune, which use CUDA graphs",
    )
    channels_last: bool = flag("--channels-last", SWITCH, WORK, "lay tensors out channels last")
    settings: Mapping[str, tuple[str, ...]] = flag(
        "--set", SETTINGS, WORK, "parameter key=value; a comma in the value sweeps"
    )
    data: str | None = flag(
        "--data", TEXT, WORK, "real input: a folder or file; or 'resident' to leave the loader out"
    )
    device: str | None = flag(
        "--device", TEXT, DEVICE, "cpu, cuda, cuda:1, npu, ...; default: best there is"
    )
    chip_limit: str | None = flag(
        "--chip-limit",
        TEXT,
        DEVICE,
        "use less of the device: sms=78,memory=24GB on a GPU, cores=2,memory=8GB on a CPU",
    )
    threads: int | None = flag("--threads", INTEGER, DEVICE, "CPU compute threads")
    workers: int | None = flag("--workers", INTEGER, DEVICE, "loader processes")
    devices: tuple[int, ...] = flag(
        "--devices",
        INTEGERS,
        LAYOUT,
        "how many, such as 8 or 1,2,8; real ones, or with --link one and the rest virtual",
    )
    parallel: tuple[str, ...] = flag(
        "--parallel", TEXTS, LAYOUT, "ddp, fsdp, tp or pp; a comma sweeps"
    )
    tp: int | None = flag("--tp", INTEGER, LAYOUT, "tensor-parallel ranks")
    dp: int | None = flag("--dp", INTEGER, LAYOUT, "data-parallel ranks")
    pp: int | None = flag("--pp", INTEGER, LAYOUT, "pipeline stages")
    links: tuple[str, ...] = flag(
        "--link",
        LINKS,
        LAYOUT,
        "modelled link: a preset, bw=25GB/s,latency=5us, a file, or a*8/b*4; a comma sweeps; "
        "`bench list links`",
    )
    mode: str | None = flag(
        "--mode",
        TEXT,
        LAYOUT,
        "real, throttled, emulated or simulated; default: emulated with --link, else real",
    )
    bucket_mib: float | None = flag(
        "--bucket-mib", NUMBER, LAYOUT, "MiB of gradients that ddp sends together; default: 25"
    )
    grad_accum: int = flag(
        "--grad-accum", INTEGER, LAYOUT, "micro-batches in one optimizer step", default=1
    )
    schedule: str = flag(
        "--schedule", TEXT, LAYOUT, "pipeline: 1f1b or interleaved-2; default: 1f1b", default="1f1b"
    )
    mitigate: tuple[str, ...] = flag(
        "--mitigate", TEXTS, LAYOUT, "none, bf16, powersgd-2, diloco-64, ...; a comma sweeps"
    )
    contention: str = flag(
        "--contention",
        TEXT,
        LAYOUT,
        "compute units that communication takes: bracket (none and the link's; the default), none, "
        "or a number",
        default="bracket",
    )
    profile: str = flag(
        "--profile",
        TEXT,
        EFFORT,
        "smoke, quick, default or rigorous: 1, 1, 3-5 or 6-10 trials",
        default="default",
    )
    trials: int | None = flag(
        "--trials", INTEGER, EFFORT, "exactly this many trials of each configuration"
    )
    budget_s: float | None = flag(
        "--budget", DURATION, EFFORT, "time for the whole run, such as 10m"
    )
    timeout_s: float = flag(
        "--timeout", DURATION, EFFORT, "longest time for one trial; default: 15m", default=900.0
    )
    seed: int = flag(
        "--seed", INTEGER, EFFORT, "seed of data, weights and order; default: 0", default=0
    )
    oom_shrink: bool = flag("--oom-shrink", SWITCH, EFFORT, "halve the batch when memory runs out")


FLAGS: Mapping[str, Flag] = {
    one.name: one.metadata["flag"] for one in dataclasses.fields(RunRequest)
}
"""By the field's name."""
TO_TRIAL: tuple[str, ...] = tuple(
    one.name
    for one in dataclasses.fields(Config)
    if one.name in FLAGS and one.name not in ("data", "device", "chip_limit")
)
"""Flags that a configuration carries to the trial as they were given."""


def read_flags(given: Mapping[str, Any]) -> RunRequest:
    """Build the request from the command's parameters; `UsageError` where a form is wrong."""
    values = {}
    for name, one in FLAGS.items():
        value = given[one.parameter]
        if not (value is None or value is False or value == []):
            values[name] = one.kind.read(value, one.names[0])
    return RunRequest(**values)


def is_given(request: RunRequest, name: str) -> bool:
    """Whether the flag of that field is not at its default."""
    return bool(getattr(request, name) != getattr(_DEFAULT, name))


_DEFAULT = RunRequest()


def command_words(request: RunRequest) -> list[str]:
    """Return the flags of `bench run` that make this request."""
    line: list[str] = []
    for name, one in FLAGS.items():
        if not is_given(request, name):
            continue
        if one.kind is SWITCH:
            line.append(one.names[0])
        for text in one.kind.write(getattr(request, name)):
            line += [one.names[0], text]
    return line

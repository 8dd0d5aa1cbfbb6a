"""The nouns of the harness: what things are, not what is done with them.

Frozen keyword-only dataclasses. Quantities are in base units (seconds, bytes, FLOP, joules, watts,
hertz) and None means unknown or not measured. Results are plain rows (`bench.results.schema`),
because a row outlives the code that wrote it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Dtype = Literal["fp32", "tf32", "bf16", "fp16"]
DTYPES: tuple[Dtype, ...] = ("fp32", "tf32", "bf16", "fp16")
DTYPE_BYTES: Mapping[str, int] = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2}
COMPILE_MODES = ("reduce-overhead", "max-autotune")
"""Modes of torch.compile that replay CUDA graphs, so that the host launches once."""
SIZES = ("tiny", "small", "base", "large")
Mode = Literal["real", "throttled", "emulated", "simulated"]
MODES: tuple[Mode, ...] = ("real", "throttled", "emulated", "simulated")
Strategy = Literal["ddp", "fsdp", "tp", "pp"]
STRATEGIES: tuple[Strategy, ...] = ("ddp", "fsdp", "tp", "pp")
Status = Literal["OK", "WARN", "INVALID", "FAILED", "SKIPPED"]
Capability = Literal["ok", "raises", "wrong"]

Scalar = str | int | float | bool | None
"""A parameter or cell value."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """One thing torch can run on."""

    type: str
    """torch device type: cpu, cuda (also ROCm and lookalikes), xpu, mps, npu; fake, endpoint."""
    index: int
    name: str
    """Marketing name as the driver or operating system gives it."""
    vendor: str | None
    """nvidia, amd, intel, apple, huawei, ... ; None when nothing shows."""
    stack: str
    """Software stack with version, such as 'CUDA 13.0', 'ROCm 7.1', 'CPU'."""
    memory_bytes: int | None
    """Total device memory; on a CPU the memory this process may use (cgroup limit honoured)."""
    memory_free_bytes: int | None = None
    uuid: str | None = None
    """Driver's identifier, for matching telemetry; never written unhashed."""
    pci_bus_id: str | None = None
    compute_units: int | None = None
    """Streaming multiprocessors, compute units, or physical cores usable here."""
    telemetry: tuple[str, ...] = ()
    """What can be sampled: power, energy, temperature, sm_clock, throttle, memory, ecc."""

    @property
    def label(self) -> str:
        """`cuda:0`, or `cpu`."""
        is_alone = self.type == "cpu" or not self.is_here
        return self.type if is_alone else f"{self.type}:{self.index}"

    @property
    def is_here(self) -> bool:
        """Whether load, heat and power of this machine are those of its trials."""
        return self.type not in ("fake", "endpoint")


@dataclass(frozen=True, kw_only=True)
class Reach:
    """What programs get out of one part of a chip, per second: a band, not an error."""

    low: float
    high: float
    basis: Literal["measured", "kin", "formula"]
    """kin: measured on a chip of the same silicon; formula: from watts a unit."""
    sources: tuple[str, ...]
    note: str | None = None

    @property
    def mid(self) -> float:
        """Geometric middle."""
        return float((self.low * self.high) ** 0.5)


@dataclass(frozen=True, kw_only=True)
class Chip:
    """One catalogue row. Peaks are dense, per package, in FLOP/s (int8: OP/s)."""

    id: str
    name: str
    vendor: str
    kind: str
    peak_per_s: Mapping[str, float]
    """Known dense peaks by dtype (fp64, fp32, tf32, bf16, fp16, fp8, int8); no key: unknown."""
    memory_bytes: float | None
    memory_bytes_per_s: float | None
    tdp_w: float | None
    confidence: Literal["high", "medium", "low"]
    sources: tuple[str, ...]
    facts: Mapping[str, Scalar] = field(default_factory=dict)
    """Everything else the row states, by name with unit: link, die area, units, clock, year, ..."""
    reaches: Mapping[str, Reach] = field(default_factory=dict)
    """Rates that were measured: gemm (16 bit), gemm_fp8, memory, cache."""
    derates: Mapping[str, float] = field(default_factory=dict)
    """Achieved fraction of a link where a source measured it (p2p, all_reduce)."""

    @property
    def peak16_per_s(self) -> float | None:
        """Dense peak in a dtype of 16 bits."""
        return self.peak_per_s.get("fp16") or self.peak_per_s.get("bf16")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How one step is spread over devices, and over which link; the default is one device."""

    mode: Mode = "real"
    strategy: Strategy | None = None
    """What divides the work; with `tensor` and `data` both over 1 it is tp, and dp runs across."""
    data: int = 1
    """Replicas (ddp) or shards (fsdp)."""
    tensor: int = 1
    """Ranks that share each matrix product; neighbours, so inside a node where there are nodes."""
    pipeline: int = 1
    """Stages."""
    link: str = ""
    """The modelled link as `parse_topology` reads it; '' for what is really there."""
    bucket_bytes: int = 25 * 2**20
    """Gradients that DDP sends together; torch's default."""
    grad_accum: int = 1
    """Micro-batches in one optimizer step."""
    schedule: str = "1f1b"
    """Pipeline: 1f1b, or interleaved-V with V chunks of the net on each device."""
    mitigate: str = ""
    """Algorithmic mitigation, such as powersgd-2 or diloco-64; see `bench.parallel.support`."""
    contention: str = "bracket"
    """Compute units that communication takes at the bracket's upper end, where mode is emulated.

    bracket: as many as the link is known to take; a whole number: so many; none: that end has the
    link's error alone, as with 0 and on a CPU, which has no such units.
    """

    @property
    def devices(self) -> int:
        """Ranks in all."""
        return self.data * self.tensor * self.pipeline

    @property
    def is_single(self) -> bool:
        """Whether this is one real device and nothing else."""
        return self.devices == 1 and self.mode == "real"


StepMark = Literal["optimizer", "forward", "loader", "mark"]
STEP_MARKS: tuple[StepMark, ...] = ("optimizer", "forward", "loader", "mark")
"""What ends a step of a user's script: the optimizer's update, the outermost module's forward
without gradients, the next batch of a loader, or a call of `bench.mark_step`."""


OWN_DATA = "script"
"""What the rows of a user's own program say of its data: it brings them."""


@dataclass(frozen=True, kw_only=True)
class Script:
    """How a user's own program is measured; what it is called with is no part of any file."""

    step: StepMark = "optimizer"
    items_per_step: int | None = None
    """Items of one rank; None counts what its loaders yield."""
    flops_per_step: float | None = None
    """As counted in a step outside every window; None where something in it has no formula."""
    counted_items: int | None = None
    """Items that loaders yielded for that step: a smaller batch has its share of the FLOPs."""
    counted_tensors: int | None = None
    """Tensors that took gradients in that step: where others do, its FLOPs are others."""
    runs_to_end: bool = False
    """Whether it goes on after the window."""
    is_rank: bool = False
    """Whether it runs as rank 0 of the layout's devices, however few; the others are virtual."""


@dataclass(frozen=True, kw_only=True)
class Serving:
    """How requests come by themselves to an inference phase, and what they are promised."""

    arrivals: str
    """Law and rate, or `auto`; a file by its name and digest."""
    slo: str = ""
    """Limits of a request; '' where there are none."""
    max_batch: int = 1
    """Requests that are served together at most."""
    max_wait_s: float = 0.0
    """How long an incomplete batch waits, from its first request on."""
    prompt_tokens: str = ""
    """Law of the lengths of prompts, where requests are of tokens; '' where they are not."""
    output_tokens: str = ""
    """Law of how many tokens they ask for."""
    seconds: float = field(default=60.0, metadata={"is_hashed": False})
    """How long requests come."""
    given: str = field(default="", metadata={"is_hashed": False})
    """The arrivals as they were typed, where a file is read again."""
    think_s: float = field(default=30.0, metadata={"is_hashed": False})
    """Of a user between an answer and the next request."""
    scenario: str = ""
    """Of MLPerf, such as mlperf-server, whose LoadGen then sends the requests."""


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A server of tokens somewhere, and how patiently it is asked."""

    address: str
    """Such as http://HOST:8000/v1."""
    stall_s: float = 30.0
    """Without an event for so long a request is given up."""
    think_s: float = 30.0
    """Of a user between an answer and the next request."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What one trial runs; trials with an equal hash (`bench.run.planning.plan`) are comparable."""

    workload: str
    """Name of the workload file without .py; `source` says where it is."""
    source: str
    """Path of the file for a workload from outside the package, else ''."""
    phase: str
    version: str
    """`<declared version>-<hash of the source>`."""
    size: str
    params: Mapping[str, Scalar]
    """Every field of the workload at this size, `batch` included, after --set and --batch."""
    dtype: Dtype
    compile: bool
    channels_last: bool
    data: str
    """'generated', 'resident', the path given with --data, or `OWN_DATA`."""
    device: str
    """Requested device label, such as 'cpu' or 'cuda:0'."""
    threads: int | None
    """CPU compute threads; None lets the harness choose."""
    workers: int | None
    """Loader worker processes; None lets the harness choose."""
    seed: int
    layout: Layout = Layout()
    chip_limit: str = ""
    """What is left of the device, as `--chip-limit` takes it; '' leaves it whole."""
    compile_mode: str | None = None
    """Mode of torch.compile, one of `COMPILE_MODES`; None is torch's own choice."""
    script: Script | None = field(default=None, metadata={"is_hashed": False})
    """For a user's own program; what distinguishes one from another is in `params`."""
    serving: Serving | None = None
    """Requests come by themselves, and each step serves some; None: steps follow one another."""
    server: Endpoint | None = field(default=None, metadata={"is_hashed": False})
    """Who serves, where that is no process of ours: two of them are to be compared."""

    @property
    def name(self) -> str:
        """`imaging-train`, or what a user's own program is called."""
        return self.workload if self.script else f"{self.workload}-{self.phase}"

    @property
    def origin(self) -> str:
        """What `--workload` calls the file: its path, or the name of a shipped one."""
        return self.source or self.workload

    @property
    def needs_ranks(self) -> bool:
        """Whether a trial is one process for each device, all of them real."""
        is_real = self.layout.mode in ("real", "throttled") and self.device != "fake"
        return is_real and self.layout.devices > 1

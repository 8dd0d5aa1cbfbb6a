"""What a process that measures and its parent tell each other: one JSON line for each message.

A request goes to the child on its standard input; everything else comes back through a file
descriptor. Each message is a type of its own, distinguished by its tag.
"""

from __future__ import annotations

import json
import os
from typing import Any

import msgspec

from bench.core.nouns import Config
from bench.core.statistics import median, percentile
from bench.hardware.costs.collectives import Op
from bench.hardware.costs.formulas import transfer_factor
from bench.measure.timing.limits import Limits
from bench.results.schema import Row


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="event"):
    """One line."""


class TrialRequest(Message, frozen=True, tag="trial"):
    """One trial: what to run, for how long, on which cores."""

    config: Config
    limits: Limits
    trial: int
    cpu_ids: tuple[int, ...]
    """Cores to run on; empty leaves the affinity alone."""
    threads: int
    workers: int
    idle_s: float
    """Time to sit idle with the device context open, for the idle power."""
    also_links: tuple[str, ...] = ()
    """Further links that the traced steps are replayed over."""
    command: tuple[str, ...] = ()
    """The user's own program, which is then what runs."""
    is_look: bool = False
    """Whether the program's first steps are only looked at: it answers with `ScriptFacts`."""


class Devices(msgspec.Struct, frozen=True, kw_only=True):
    """Devices of one kind on this machine."""

    label: str
    """Of the one that is meant."""
    name: str
    count: int


class LinkRequest(Message, frozen=True, tag="measure_link"):
    """Time collectives of so many bytes between the ranks."""

    device: str
    ops: tuple[Op, ...]
    sizes: tuple[int, ...]
    repetitions: int


class RunEnd(Message, frozen=True, tag="end"):
    """Under torchrun: the run is over."""


class Stage(Message, frozen=True, tag="stage"):
    """What is being done now."""

    name: str


class StepsSoFar(Message, frozen=True, tag="progress"):
    """The running estimate."""

    elapsed_s: float
    steps: int
    step_s: float


class ServedSoFar(Message, frozen=True, tag="served"):
    """Requests that ended since the last time, and what all of them came to."""

    elapsed_s: float
    arrivals: str
    """Of which run of the trial, as its rows say it."""
    num: int
    held_frac: float | None
    """Share that held the limits."""
    requests: list[dict[str, float | int | str]]
    columns: Row = {}
    """Of a run that is over: its rate, and the share that held with its interval."""


class Written(msgspec.Struct, frozen=True):
    """What a user's own program wrote just now; it is shown, and sent nowhere."""

    chunk: bytes


class Samples(msgspec.Struct, frozen=True, kw_only=True):
    """Every step of a trial."""

    warmup_step_s: list[float]
    step_s: list[float]
    step_clock: str
    data_wait_s: list[float] | None


class TrialResult(Message, frozen=True, tag="result"):
    """What a trial measured: its columns of the row, what is wrong with it, its steps."""

    row: Row
    reasons: list[str]
    detail: str
    window_start_s: float
    window_end_s: float
    samples: Samples
    over_links: dict[str, Row] = {}
    """The columns over each of the further links."""
    logs: dict[str, str] = {}
    """What LoadGen wrote about the trial, by the file's folder and name."""


class ScriptFacts(Message, frozen=True, tag="facts"):
    """What the first steps of a user's own program show; nothing of it is a time."""

    device: str
    uuid: str | None
    """The device's, where it has one."""
    version: str
    """Hash of what it imported from its own folder."""
    dtype: str
    """Of the operators with most FLOPs."""
    strategy: str | None
    """How it spreads work, from what its ranks send; None where they send nothing."""
    num_ranks: int
    is_training: bool
    items_per_step: int | None
    """Of one rank, from its loaders."""
    items_of: str
    """What says how many they are, such as the first dimension of a tensor in a batch."""
    grad_accum: int
    """Fewest backward passes before an update."""
    num_parameters: int | None
    num_trained: int
    """Tensors of parameters that take gradients."""
    optimizer: str | None
    is_compiled: bool
    threads: int
    flops_per_step: float | None
    uncounted: list[str]
    """What of the step has no formula for its FLOPs."""
    operators: list[Any]
    sent: list[tuple[Op, int, int]]
    """Collectives of a step: operator, bytes of the full tensor, ranks."""
    stand_ins: list[str]
    """What it would have from other ranks, and what it has instead, in words."""


class LinkPoint(msgspec.Struct, frozen=True, kw_only=True):
    """One operation at one size: every repetition's time of its slowest rank."""

    op: Op
    num_ranks: int
    num_bytes: int
    seconds: tuple[float, ...]

    @property
    def median_s(self) -> float:
        """Median over the repetitions."""
        return median(self.seconds)

    @property
    def iqr_s(self) -> float:
        """Distance of the quartiles."""
        return percentile(self.seconds, 0.75) - percentile(self.seconds, 0.25)

    @property
    def bus_bytes_per_s(self) -> float:
        """What each device sends, over the time; not a rate of the wire where switches add."""
        return transfer_factor(self.op, num_ranks=self.num_ranks) * self.num_bytes / self.median_s


class LinkResult(Message, frozen=True, tag="link"):
    """Times of collectives, and what the backend lacks, in its words."""

    points: list[LinkPoint]
    missing: dict[str, str]
    backend: str


class Failure(Message, frozen=True, tag="failure"):
    """Why there is no result: a reason code, and a line in words."""

    code: str
    detail: str


class Seen(Message, frozen=True, tag="seen"):
    """What a process of a user's own program did, besides what is measured."""

    marks: dict[str, int]
    """How many steps there would have been by each mark, and how many backward passes."""
    failure: Failure | None = None
    """What it ended with, where it failed."""


class RankFailure(msgspec.Struct, frozen=True, kw_only=True):
    """What a rank raised, and whether it only lost another one."""

    rank: int
    failure: Failure
    """As the trial's row has it."""
    is_lost_peer: bool
    time_s: float


class Post(msgspec.Struct, frozen=True, kw_only=True):
    """Under torchrun: a message to put into the store; without a number it is the next one's."""

    number: int | None
    key: str
    message: RunEnd | Failure


RankRequest = TrialRequest | LinkRequest
Request = TrialRequest | LinkRequest | RunEnd
Result = TrialResult | ScriptFacts | LinkResult | RunEnd
Answer = Stage | StepsSoFar | ServedSoFar | Seen | Result | Failure
News = Stage | StepsSoFar | ServedSoFar | Seen | Written
"""What a listener hears while a process runs."""


def encode(message: object) -> bytes:
    """Write one line; ValueError for a number that is not finite, which JSON does not have."""
    plain = msgspec.to_builtins(message, enc_hook=_plain)
    return json.dumps(plain, allow_nan=False).encode() + b"\n"


def decode(line: bytes | str, kind: Any) -> Any:
    """Read one line; `msgspec.ValidationError` for what is no such message."""
    return msgspec.json.decode(line, type=kind)


def _plain(value: object) -> object:
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)
    raise NotImplementedError(f"{type(value).__name__} cannot be sent")


class Messages:
    """The way to the parent; without a descriptor nothing is sent, as of ranks other than 0."""

    def __init__(self, descriptor: int | None = None) -> None:
        self._stream = None if descriptor is None else os.fdopen(descriptor, "wb", buffering=0)
        self.kept: Any = None
        """What must live as long as the process."""

    def send(self, message: Message) -> None:
        """Write one message at once."""
        if self._stream is None:
            return
        rest = memoryview(encode(message))
        while rest:
            rest = rest[self._stream.write(rest) :]

    def stage(self, name: str) -> None:
        """Report what is being done."""
        self.send(Stage(name=name))

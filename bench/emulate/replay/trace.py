"""One step as its rank executed it: when compute issued a collective, and when it waited for one.

Recorded by the emulated process group, replayed by `bench.emulate.replay.simulate`. Times are
seconds on one clock (the host's on a CPU, the device's on an accelerator) from the start of the
step. What lies between two marks of a lane is compute.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench.hardware.costs.collectives import Group, Op


@dataclass(frozen=True, kw_only=True, slots=True)
class Collective:
    """One collective of the step."""

    op: Op
    num_bytes: int
    group: Group
    modelled_s: float
    """What the link took for it in the run, without queueing."""
    issued_s: float
    """When its input was ready and it was handed to the link."""
    start_s: float
    """When the link began with it: later than issued when the link was busy."""
    end_s: float
    """When it was complete for what waits for it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """Something that the compute lane did, in order."""

    kind: Literal["issue", "wait", "drain"]
    """A wait is for one collective, by name; a drain for whatever DDP still has under way."""
    collective: int
    """Index into `StepTrace.collectives`."""
    start_s: float
    """Compute up to here since the last mark's end."""
    end_s: float
    """When compute went on: for a wait, after the collective was complete."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepTrace:
    """One traced step of one rank."""

    duration_s: float
    collectives: tuple[Collective, ...]
    marks: tuple[Mark, ...]

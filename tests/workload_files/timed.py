"""A workload that only the fake device can run: a step of it takes the time that it is given."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bench.workload
from bench.core.errors import UsageError
from bench.workload import Phase


@dataclass(frozen=True, kw_only=True)
class Workload(bench.workload.Workload):
    """Simulated time."""

    summary = "simulated steps of a given time"
    accepts_data = "any folder"

    seconds: float = 0.1
    width: int = 1
    shape: tuple[int, ...] = (1, 2)
    note: str | None = None
    is_wide: bool = False
    pace: str = ""
    """Name of a file in the working folder, with the number that times are multiplied by."""

    def __post_init__(self) -> None:
        if not self.seconds > 0 or not math.isfinite(self.seconds):
            raise UsageError(f"seconds must be greater than 0, not {self.seconds}")

    def build_net(self) -> Any:
        raise NotImplementedError

    def dataset(self, phase: Phase, *, data: Path | None, seed: int) -> list[Any]:
        raise NotImplementedError

    def loss(self, net: Any, batch: Any) -> Any:
        raise NotImplementedError

    def infer(self, net: Any, batch: Any) -> Any:
        raise NotImplementedError

    def items(self, phase: Phase, batch: Any) -> int:
        return self.batch

    def num_parameters(self) -> int:
        return self.width

    def flops_per_item(self, phase: Phase, batch: Any = None) -> float | None:
        return 1e9 * self.width

    def memory_bytes(self, phase: Phase, *, dtype: str) -> int:
        return 1000 * self.batch

    def simulated_step_s(self, phase: Phase) -> float:
        factor = float(Path(self.pace).read_text()) if self.pace else 1.0
        return self.seconds * factor * (3 if phase.is_training else 1)

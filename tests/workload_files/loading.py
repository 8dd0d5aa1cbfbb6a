"""A small net whose data, read by the loader's workers, fail as `fault` names."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from small_net import Workload as SmallNet

from bench.workload import TRAIN, Phase


def _unreadable() -> None:
    try:
        Path("/nowhere/case_003.nii.gz").read_bytes()
    except OSError as error:
        raise ValueError("case_003 cannot be read") from error


def _large() -> Any:
    import torch

    return torch.zeros(2**20)


FAULTS: dict[str, Callable[[], Any]] = {"unreadable": _unreadable, "large": _large}


class Rows(list[Any]):
    """Rows that fail when they are read, or are larger than they are."""

    fault = ""

    def __getitem__(self, index: Any) -> Any:
        row = super().__getitem__(index)
        return FAULTS[self.fault]() if self.fault in FAULTS else row


@dataclass(frozen=True, kw_only=True)
class Workload(SmallNet):
    """A linear layer."""

    phases = (TRAIN,)

    def dataset(self, phase: Phase, *, data: Path | None, seed: int) -> Any:
        rows = Rows(super().dataset(phase, data=data, seed=seed))
        rows.fault = self.fault
        return rows

"""Steps of a size, whose ends the program itself notes: `hand_timed.py MARK SIZE SECONDS FILE`.

MARK is what ends a step under `bench wrap`. SIZE is the width of the net; 0 makes a step that does
next to nothing. Ends of steps, in seconds of the performance counter, go to FILE.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import bench


def main(mark: str, width: int, seconds: float, notes: Path) -> None:
    net = nn.Sequential(*[nn.Linear(width or 1, width or 1) for _ in range(3 if width else 1)])
    optimizer = torch.optim.SGD(net.parameters(), 1e-9, foreach=False)
    batch = 32 if width else 1
    loader = DataLoader(TensorDataset(torch.ones(batch * 64, width or 1)), batch_size=batch)

    def train(x: torch.Tensor) -> None:
        net(x).mean().backward()
        optimizer.step()

    def infer(x: torch.Tensor) -> None:
        with torch.no_grad():
            net(x)

    work: Callable[[torch.Tensor], None] = infer if mark == "forward" else train
    ends_s: list[float] = []
    stop_s = time.perf_counter() + seconds
    try:
        while time.perf_counter() < stop_s:
            for (x,) in loader:
                work(x)
                if mark == "mark":
                    bench.mark_step()
                ends_s.append(time.perf_counter())
    finally:
        notes.write_text(json.dumps(ends_s))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4]))

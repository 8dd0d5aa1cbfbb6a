"""Its simulated step takes 10 ms times the number in the file `slowdown` of the working folder."""

from pathlib import Path

import bench.workload
from bench.workload import Phase
from tests.workload_files import timed


class Workload(timed.Workload):
    summary = "a workload that a change in its surroundings makes slower"

    def simulated_step_s(self, phase: Phase) -> float:
        return 0.01 * float(Path("slowdown").read_text())


assert issubclass(Workload, bench.workload.Workload)

"""Energies and forces of molecules: PaiNN, trained on both and applied to give both.

What drug discovery runs for each step of a simulation. Forces are the slope of the energy, so that
inference holds a backward, and training a backward through one. Without --data: clusters under a
Morse potential.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import bench.workload
from bench.workload import Phase, UsedData
from workloads._molecules.molecules_cost import PaiNNShape

TRAIN = Phase(name="train", item="molecule", element="atom", is_training=True)
INFER = Phase(name="infer", item="molecule", element="atom")


@dataclass(frozen=True, kw_only=True)
class Workload(PaiNNShape, bench.workload.Workload):
    """A PaiNN of any shape; the defaults are those of QM9 and MD17."""

    summary = "energies and forces of molecules by a neural potential (PaiNN)"
    domain = "medical"
    dtypes = ("fp32", "tf32")  # half a precision would round positions to three digits
    phases = (TRAIN, INFER)
    accepts_data = "an extended XYZ file (.xyz, .extxyz) or an rMD17 .npz file"
    libraries = ("workloads._molecules.molecules_net", "workloads._molecules.molecules_data")
    max_grad_norm = 10.0
    sizes = {
        "tiny": {"batch": 16, "atoms": 7, "hidden": 32, "layers": 2},
        "small": {"batch": 32},
        "base": {},
        # github.com/FAIR-Chem/fairchem, configs/oc20/s2ef/all/painn/painn_h512.yml, and its batch
        "large": {"batch": 32, "atoms": 80, "hidden": 512, "layers": 6, "radial": 128,
                  "cutoff": 12.0}}  # fmt: skip

    def build_net(self) -> Any:
        """Return a PaiNN with random weights."""
        from workloads._molecules.molecules_net import PaiNN

        return PaiNN(self)

    def dataset(self, phase: Phase, *, data: Path | None, seed: int) -> Sequence[Any]:
        """Return molecules to train on, or others, with the neighbours of their atoms."""
        from workloads._molecules.molecules_data import samples

        return samples(self, data=data, seed=seed, is_training=phase.is_training)

    def collate(self, phase: Phase) -> Any:
        """Return what joins molecules of any sizes into one graph."""
        from workloads._molecules.molecules_data import joined

        return joined

    def loss(self, net: Any, batch: Any) -> Any:
        """Return the error of the energy for each atom and, weighted, of the forces."""
        from workloads._molecules.molecules_net import loss

        return loss(net(batch), batch)

    def infer(self, net: Any, batch: Any) -> Any:
        """Return energies (B,) and forces (A, 3), or None for these."""
        return net(batch, self.forces)

    def refused(self, phase: Phase) -> Mapping[str, str]:
        """Refuse what cannot go backward through a backward."""
        if not (phase.is_training or self.forces):
            return {}
        why = "forces are a slope that the net takes itself"
        return {
            "fsdp": f"{why}, and fsdp's hooks gather weights for one backward alone; use ddp",
            "compile": f"{why}, and torch.compile has no double backward; leave it out",
        }

    def sized_for(self, phase: Phase, data: Path) -> Self:
        """Return this net for generated molecules as large as the file's largest."""
        from workloads._molecules.molecule_files import read_structures

        return replace(self, atoms=max(int(read_structures(data).sizes.max()), 2))

    def check_data(self, data: Path) -> None:
        """Read the whole file."""
        from workloads._molecules.molecule_files import read_structures

        read_structures(data)

    def data_used(self, phase: Phase, data: Path) -> UsedData:
        """Count the structures that are trained on, or held out."""
        from workloads._molecules.molecule_files import structures_used

        return structures_used(data, is_training=phase.is_training)

    def check(self, phase: Phase, output: Any) -> None:
        """Refuse a loss, energies or forces that are not finite."""
        from workloads._molecules.molecules_net import check

        check(output, num_parameters=self.num_parameters())

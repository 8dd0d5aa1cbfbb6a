"""What PaiNN amounts to, by formula: parameters, FLOPs, memory. Plain Python.

Letters: A atoms, E directed edges, H features, R radial functions. Products of matrices are all
that is counted, as FlopCounterMode does. Forces are a backward to the positions: each product's
input gradient once more, but for the first layer's message, which sees the elements alone. Training
goes backward through forward and forces: twice each, less one product at the very end, whose
gradient is the constant one.

A forward and its two backwards keep all that lies on edges, three times H wide in each layer: 38
tensors of E x H, with forces alone 20, without grad 15 at one time. These numbers, and those of
atoms, are fitted to peaks of live storages that were counted on a CPU for eleven shapes, and a
seventh is added for what an allocator loses.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, Self

from bench.core.errors import UsageError
from bench.core.nouns import Dtype
from bench.workload import Phase
from workloads._costs.transformer_cost import linear_parameters

NUM_ELEMENTS = 100
"""Rows of the embedding, as SchNetPack has them."""


@dataclass(frozen=True, kw_only=True)
class KeptElements:
    """Elements of fp32 that live at the peak of a step, for each unit of what follows."""

    edge_features: float
    """Edges x features, times layers where a backward needs them all."""
    atom_features: float
    edge_inputs: float
    """Edges x features once: what directions and distances come to."""
    edge_waves: float
    """Edges x radial functions."""


TRAINING = KeptElements(edge_features=42, atom_features=64, edge_inputs=4, edge_waves=8)
WITH_FORCES = KeptElements(edge_features=22, atom_features=22, edge_inputs=6, edge_waves=4)
ENERGY_ALONE = KeptElements(edge_features=17, atom_features=5, edge_inputs=1, edge_waves=2)


@dataclass(frozen=True, kw_only=True)
class PaiNNShape:
    """The parameters that fix the net's cost; the defaults are those of QM9 and MD17."""

    batch: int = 1024
    """Molecules."""
    atoms: int = 20
    """Of a generated molecule; those of --data have their own."""
    hidden: int = 128
    layers: int = 3
    radial: int = 20
    cutoff: float = 5.0
    """Angstrom; atoms farther apart do not see each other."""
    neighbours: int = 50
    """An atom receives from so many nearest ones at most (fairchem's max_neighbors)."""
    forces: bool = True
    """Whether inference gives forces beside the energy; training always does."""

    def __post_init__(self) -> None:
        for name in ("batch", "layers", "radial", "neighbours"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.atoms < 2:
            raise UsageError(
                f"atoms must be at least 2, not {self.atoms}: one alone feels no force"
            )
        if self.hidden < 2:
            raise UsageError(f"hidden must be at least 2, not {self.hidden}: the head halves it")
        if not 0 < self.cutoff < math.inf:
            raise UsageError(f"cutoff must be a length over 0 in Angstrom, not {self.cutoff}")

    @property
    def edges(self) -> int:
        """Directed edges of a generated molecule: all its atoms are within the cutoff."""
        return self.atoms * min(self.atoms - 1, self.neighbours)

    def num_parameters(self) -> int:
        """Return embedding, layers and head."""
        hidden = self.hidden
        scalars = linear_parameters(hidden, outputs=hidden)
        scalars += linear_parameters(hidden, outputs=3 * hidden)
        filters = linear_parameters(self.radial, outputs=3 * hidden)
        mix = linear_parameters(hidden, outputs=2 * hidden, has_bias=False)
        update = linear_parameters(2 * hidden, outputs=hidden)
        update += linear_parameters(hidden, outputs=3 * hidden)
        head = linear_parameters(hidden, outputs=hidden // 2)
        head += linear_parameters(hidden // 2, outputs=1)
        return NUM_ELEMENTS * hidden + self.layers * (scalars + filters + mix + update) + head

    def flops(self, phase: Phase, *, atoms: float, edges: float) -> float:
        """Return the FLOPs of so many atoms and edges."""
        message = 8 * atoms * self.hidden**2
        layer = message + 6 * edges * self.radial * self.hidden + 22 * atoms * self.hidden**2
        head = 2 * atoms * (self.hidden + 1) * (self.hidden // 2)
        energy = self.layers * layer + head
        with_forces = 2 * energy - message
        if phase.is_training:
            return float(3 * with_forces - 2 * atoms * (self.hidden // 2))
        return float(with_forces if self.forces else energy)

    def flops_per_item(self, phase: Phase, batch: Any = None) -> float:
        """Return the FLOPs of a molecule, in a batch of --data of the mean one."""
        if batch is None:
            return self.flops(phase, atoms=self.atoms, edges=self.edges)
        molecules, atoms, edges = counts(batch)
        return self.flops(phase, atoms=atoms, edges=edges) / molecules

    def items(self, phase: Phase, batch: Any) -> int:
        """Return the molecules of the batch."""
        return self.batch if batch is None else counts(batch)[0]

    def elements(self, phase: Phase, batch: Any) -> int:
        """Return their atoms."""
        return self.batch * self.atoms if batch is None else counts(batch)[1]

    def _kept(self, phase: Phase, *, atoms: float, edges: float) -> float:
        """Return the elements that live at the peak for so many atoms and edges."""
        kept, layers = (TRAINING if phase.is_training else WITH_FORCES), self.layers
        if not (phase.is_training or self.forces):
            kept, layers = ENERGY_ALONE, 1
        of_layers = layers * (kept.edge_features * edges + kept.atom_features * atoms)
        of_inputs = kept.edge_inputs * self.hidden + kept.edge_waves * self.radial + 46
        return of_layers * self.hidden + of_inputs * edges

    def memory_bytes(self, phase: Phase, *, dtype: Dtype) -> int:
        """Return weights, in training with gradients and AdamW's two moments, and what is kept."""
        state = (4 if phase.is_training else 1) * self.num_parameters()
        kept = self.batch * self._kept(phase, atoms=self.atoms, edges=self.edges)
        return math.ceil(4 * (state + kept))

    def sized_as(self, phase: Phase, batch: Any) -> Self:
        """Return this net for generated molecules that need as much memory as the batch's."""
        molecules, atoms, edges = counts(batch)
        wanted, alike = self._kept(phase, atoms=atoms, edges=edges), replace(self, batch=molecules)
        while molecules * alike._kept(phase, atoms=alike.atoms, edges=alike.edges) > wanted:
            if alike.atoms == 2:
                return alike
            alike = replace(alike, atoms=alike.atoms - 1)
        while molecules * alike._kept(phase, atoms=alike.atoms, edges=alike.edges) < wanted:
            alike = replace(alike, atoms=alike.atoms + 1)
        return alike


def counts(batch: Any) -> tuple[int, int, int]:
    """Return the molecules, atoms and edges of a collated batch."""
    return len(batch["num_atoms"]), len(batch["numbers"]), int(batch["edges"].shape[1])

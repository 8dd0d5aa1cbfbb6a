"""PaiNN in plain torch: energy of molecules, and forces as its derivative.

The net of Schuett et al. 2021 (https://arxiv.org/abs/2102.03150, sections 3 and 4), with
SchNetPack's sizes: sine radial functions, a cosine cutoff, 100 elements. Scalar features q (A, H)
and vector features mu (A, 3, H) of A atoms go along E directed edges; B molecules. `batch` is what
`molecules_data.joined` makes. Forces are taken inside the net's own forward, so that a wrapper's
hooks (DDP's) see one backward, the outer one.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from workloads._molecules.molecules_cost import NUM_ELEMENTS, PaiNNShape

FORCE_WEIGHT = 100.0
"""Of the force's error beside the energy's for each atom."""
NORM_FLOOR = 1e-8
"""Under the root of a vector's length, whose slope has no bound at zero."""


class PaiNNMessage(nn.Module):
    """What an atom receives from its neighbours, filtered by their distance."""

    def __init__(self, hidden: int, *, radial: int) -> None:
        super().__init__()
        first, second = nn.Linear(hidden, hidden), nn.Linear(hidden, 3 * hidden)
        self.scalars = nn.Sequential(first, nn.SiLU(), second)
        self.filters = nn.Linear(radial, 3 * hidden)

    def forward(self, q: Tensor, mu: Tensor, edges: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the features with the messages added."""
        to, origin = edges["to"], edges["origin"]
        filters = self.filters(edges["radial"]) * edges["cutoff"]
        passed = self.scalars(q).index_select(0, origin) * filters
        scalar, along, scale = passed.unsqueeze(1).chunk(3, dim=2)
        vector = along * edges["direction"] + scale * mu.index_select(0, origin)
        return q.index_add(0, to, scalar.squeeze(1)), mu.index_add(0, to, vector)


class PaiNNUpdate(nn.Module):
    """What an atom makes of its own scalars and vectors."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.mix = nn.Linear(hidden, 2 * hidden, bias=False)
        first, second = nn.Linear(2 * hidden, hidden), nn.Linear(hidden, 3 * hidden)
        self.scalars = nn.Sequential(first, nn.SiLU(), second)

    def forward(self, q: Tensor, mu: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features of the next layer."""
        v, w = self.mix(mu).chunk(2, dim=2)
        length = (v.square().sum(1) + NORM_FLOOR).sqrt()
        scalar, vector, product = self.scalars(torch.cat([q, length], dim=1)).chunk(3, dim=1)
        return q + scalar + product * (v * w).sum(1), mu + vector.unsqueeze(1) * w


class PaiNN(nn.Module):
    """Energies (B,) and, where asked, forces (A, 3)."""

    def __init__(self, shape: PaiNNShape) -> None:
        super().__init__()
        self.radial, self.cutoff = shape.radial, shape.cutoff
        self.hidden = hidden = shape.hidden
        layers = range(shape.layers)
        self.embedding = nn.Embedding(NUM_ELEMENTS, hidden)
        self.messages = nn.ModuleList(PaiNNMessage(hidden, radial=self.radial) for _ in layers)
        self.updates = nn.ModuleList(PaiNNUpdate(hidden) for _ in layers)
        first, second = nn.Linear(hidden, hidden // 2), nn.Linear(hidden // 2, 1)
        self.head = nn.Sequential(first, nn.SiLU(), second)

    def forward(self, batch: dict[str, Tensor], has_forces: bool = True) -> Any:
        """Return the energies and the forces, or None for these."""
        if not has_forces:
            return self.energies(batch, batch["positions"]), None
        # The harness runs a phase in inference mode, and this one holds a backward.
        with torch.inference_mode(False), torch.enable_grad():
            positions = batch["positions"].detach().requires_grad_()
            energies = self.energies(batch, positions)
            (slope,) = torch.autograd.grad(energies.sum(), positions, create_graph=self.training)
        return (energies, -slope) if self.training else (energies.detach(), -slope)

    def energies(self, batch: dict[str, Tensor], positions: Tensor) -> Tensor:
        """Return the energy of each molecule for these positions."""
        q = self.embedding(batch["numbers"])
        mu = q.new_zeros(len(q), 3, self.hidden)
        edges = self._edges(batch["edges"], positions)
        for message, update in zip(self.messages, self.updates, strict=True):
            q, mu = update(*message(q, mu, edges))
        zero = q.new_zeros(len(batch["num_atoms"]))
        of_atoms = self.head(q).squeeze(1)
        energies: Tensor = zero.index_add(0, batch["molecule"], of_atoms)
        return energies

    def _edges(self, edges: Tensor, positions: Tensor) -> dict[str, Tensor]:
        to, origin = edges.unbind(0)
        offset = positions.index_select(0, origin) - positions.index_select(0, to)
        distance = offset.square().sum(1, keepdim=True).sqrt()
        step = math.pi / self.cutoff
        waves = torch.arange(1, self.radial + 1, device=offset.device) * step
        return {
            "to": to,
            "origin": origin,
            "direction": (offset / distance).unsqueeze(2),
            "radial": (distance * waves).sin() / distance,
            "cutoff": 0.5 * ((distance * step).cos() + 1.0) * (distance < self.cutoff),
        }


def loss(answer: tuple[Tensor, Tensor], batch: dict[str, Tensor]) -> Tensor:
    """Return the error of the energy per atom, and weighted the length of the force's."""
    energies, forces = answer
    of_energy = ((energies - batch["energy"]) / batch["num_atoms"]).abs().mean()
    of_force: Tensor = (forces - batch["forces"]).norm(dim=1).mean()
    return of_energy + FORCE_WEIGHT * of_force


def quality(answer: tuple[Tensor, Tensor], batch: dict[str, Tensor]) -> dict[str, float]:
    """Return what a potential is judged by: directions and lengths of forces, and energies."""
    energies, forces = answer
    wanted = batch["forces"]
    error_ev = ((energies - batch["energy"]) / batch["num_atoms"]).abs().mean()
    return {
        "force_cosine": float(torch.cosine_similarity(forces, wanted, dim=1).mean()),
        "force_error_frac": float((forces - wanted).norm() / wanted.norm()),
        "energy_mae_ev_per_atom": float(error_ev),
    }


def check(output: Any, *, num_parameters: int) -> None:
    """Raise ValueError for a loss, or energies and forces, that are not finite."""
    parts = (
        {"energy": output[0], "force": output[1]} if isinstance(output, tuple) else {"loss": output}
    )
    for name, values in parts.items():
        if values is not None and not bool(values.isfinite().all()):
            raise ValueError(f"a {name} of {num_parameters} parameters is not finite")

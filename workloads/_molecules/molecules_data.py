"""Molecules with their energies and forces, generated or from a file, and their neighbour lists.

Generated ones are clusters of four elements under a Morse potential whose well lies where two
elements' radii add up, times the net's own cutoff: energies and forces are exact. Every two atoms
of a cluster are within the cutoff, so that the number of its edges is known. Neighbours are found
in `__getitem__`, as MACE, NequIP and fairchem do in their loaders. Units are eV and Angstrom.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from workloads._molecules.molecule_files import HELD_OUT, Floats, Structures, read_structures
from workloads._molecules.molecules_cost import PaiNNShape

FEWEST_CLUSTERS, FEWEST_BATCHES = 1024, 4
"""Generated to train on, and as many others to infer."""
ELEMENTS = np.array([1, 6, 7, 8])
RADII = np.array([0.5, 0.7, 0.65, 0.6])
"""Of the elements, as shares of the least distance of two atoms."""
DEPTH_EV = 0.5
WIDTH = 1.5
"""Of the Morse well: so many e-folds over the least distance of two atoms."""
FILLED = 0.2
"""Share of the ball that atoms fill whose diameter is their least distance."""
TRIES = 16
"""Places that are drawn for an atom at once."""


def joined(samples: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Collate molecules of any sizes into one graph without edges between them."""
    num_atoms = torch.tensor([len(sample["numbers"]) for sample in samples])
    starts = (num_atoms.cumsum(0) - num_atoms).tolist()
    batch = {key: torch.cat([one[key] for one in samples]) for key in samples[0] if key != "edges"}
    edges = [one["edges"] + start for one, start in zip(samples, starts, strict=True)]
    molecule = torch.arange(len(samples)).repeat_interleave(num_atoms)
    return {
        **batch,
        "edges": torch.cat(edges, dim=1),
        "molecule": molecule,
        "num_atoms": num_atoms,
    }


class MoleculeSamples(Sequence[dict[str, torch.Tensor]]):
    """Structures with the neighbours of each atom."""

    def __init__(self, structures: Structures, *, cutoff: float, most: int) -> None:
        self._all, self._cutoff, self._most = structures, cutoff, most
        self._ends = np.cumsum(structures.sizes)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: Any) -> Any:
        index = range(len(self))[index]
        all_, end = self._all, int(self._ends[index])
        atoms = slice(end - int(all_.sizes[index]), end)
        positions = all_.positions[atoms]
        return {
            "numbers": torch.from_numpy(all_.numbers[atoms]),
            "positions": torch.from_numpy(positions).float(),
            "forces": torch.from_numpy(all_.forces[atoms]).float(),
            "energy": torch.tensor([all_.energies[index]], dtype=torch.float32),
            "edges": torch.from_numpy(neighbours(positions, cutoff=self._cutoff, most=self._most)),
        }


def neighbours(positions: Floats, *, cutoff: float, most: int) -> Any:
    """Return (2, E): the receiving and the sending atom of each pair within the cutoff.

    An atom receives from its nearest ones alone where there are more than `most`.
    """
    squared = np.square(positions[:, None] - positions[None]).sum(2)
    np.fill_diagonal(squared, math.inf)
    if len(positions) - 1 > most:
        limits = np.partition(squared, most - 1, axis=1)[:, most - 1 : most]
        squared[squared > limits] = math.inf
    return np.stack(np.nonzero(squared < cutoff**2))


def samples(
    shape: PaiNNShape, *, data: Path | None, seed: int, is_training: bool
) -> MoleculeSamples:
    """Return what is trained on, or what is held out."""
    if data is None:
        count = max(FEWEST_CLUSTERS, FEWEST_BATCHES * shape.batch)
        rng = np.random.default_rng((seed, is_training))
        made = clusters(count, atoms=shape.atoms, cutoff=shape.cutoff, rng=rng)
    else:
        read = read_structures(data)
        is_held_out = np.arange(len(read.sizes)) % HELD_OUT == HELD_OUT - 1
        trained, held_out = read.chosen(~is_held_out), read.chosen(is_held_out)
        made = (trained if is_training else held_out).less(trained.free_energies())
    return MoleculeSamples(made, cutoff=shape.cutoff, most=shape.neighbours)


def clusters(count: int, *, atoms: int, cutoff: float, rng: np.random.Generator) -> Structures:
    """Return so many random clusters."""
    least = cutoff * (FILLED / atoms) ** (1 / 3)
    positions = np.zeros((count, 0, 3))
    for _ in range(atoms):
        # Many places are drawn; each cluster takes the first that keeps its distance.
        drawn = in_ball(rng.random((count, TRIES, 3)), radius=0.499 * cutoff)
        gaps = np.square(drawn[:, :, None] - positions[:, None]).sum(3)
        nearest = gaps.min(2, initial=math.inf)
        is_free = nearest >= least**2
        # Where none does, the one that keeps most of it.
        place = np.where(is_free.any(1), is_free.argmax(1), nearest.argmax(1))
        positions = np.append(positions, drawn[np.arange(count), place][:, None], axis=1)
    kinds = rng.integers(len(ELEMENTS), size=(count, atoms))
    wells = least * (RADII[kinds][:, :, None] + RADII[kinds][:, None])
    energies, forces = morse(positions, wells=wells, width=WIDTH / least, cutoff=cutoff)
    return Structures(
        numbers=ELEMENTS[kinds].ravel(),
        positions=positions.reshape(-1, 3),
        forces=forces.reshape(-1, 3),
        energies=energies,
        sizes=np.full(count, atoms),
    )


def in_ball(uniform: Floats, *, radius: float) -> Floats:
    """Turn three numbers from 0 to 1 into a place in a ball, each as likely."""
    share, height, turn = np.moveaxis(uniform, -1, 0)
    z, angle = 2 * height - 1, 2 * math.pi * turn
    flat = np.sqrt(1 - z**2)
    there = np.stack([flat * np.cos(angle), flat * np.sin(angle), z], axis=-1)
    return np.asarray(radius * np.cbrt(share)[..., None] * there)


def morse(
    positions: Floats, *, wells: Floats, width: float, cutoff: float
) -> tuple[Floats, Floats]:
    """Return energies (M,) and forces (M, A, 3) of clusters (M, A, 3) with wells (M, A, A)."""
    offsets = positions[:, :, None] - positions[:, None]
    distances = np.sqrt(np.square(offsets).sum(3)) + np.eye(positions.shape[1])
    decay = np.exp(-width * (distances - wells))
    pair, slope = DEPTH_EV * ((1 - decay) ** 2 - 1), 2 * DEPTH_EV * width * (1 - decay) * decay
    fade = 0.5 * (np.cos(math.pi * distances / cutoff) + 1)
    falling = -0.5 * math.pi / cutoff * np.sin(math.pi * distances / cutoff)
    apart = 1 - np.eye(positions.shape[1])
    energies = 0.5 * (pair * fade * apart).sum((1, 2))
    along = (slope * fade + pair * falling) * apart / distances
    return energies, -(along[..., None] * offsets).sum(2)

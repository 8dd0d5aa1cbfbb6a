"""Files of molecules with energies and forces: extended XYZ, and the .npz of rMD17.

Extended XYZ (https://github.com/libAtoms/extxyz): the number of atoms, a line with
`Properties=species:S:1:pos:R:3:forces:R:3` and `energy=`, a line for each atom; columns in any
order, others are passed over; eV and Angstrom. rMD17 (https://doi.org/10.6084/m9.figshare.12672038):
`nuclear_charges`, `coords`, `energies`, `forces`, in kcal/mol and Angstrom. Nothing is unpickled.
Left out: periodic cells. What is wrong is said with file and line, or with the array's name.
"""

import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.core.errors import DataError
from bench.workload import UsedData

Floats = npt.NDArray[np.float64]
KCAL_PER_MOL_EV = 4184 / (1.602176634e-19 * 6.02214076e23)
"""One kcal/mol in eV: 4184 J/mol over the charge of an electron and Avogadro's number (SI)."""
ALLOWED = "an extended XYZ file (.xyz, .extxyz) or an rMD17 .npz file"
HELD_OUT = 10
"""Of a file's structures each tenth is kept from training, and inferred: there must be one."""
SYMBOLS = """
H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr
Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm
Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es
"""
NUMBERS = {symbol: number for number, symbol in enumerate(SYMBOLS.split(), start=1)}
WIDTHS = {"species": 1, "pos": 3, "forces": 3}
"""Columns that are needed, and how many fields each has."""
WHOLE = re.compile("[0-9]{1,9}")
RMD17 = ("coords", "nuclear_charges", "energies", "forces")
"""Arrays that are needed."""


@dataclass(frozen=True, kw_only=True)
class Structures:
    """Molecules one after the other."""

    numbers: npt.NDArray[np.int64]
    """Of every atom, the element."""
    positions: Floats
    forces: Floats
    energies: Floats
    sizes: npt.NDArray[np.int64]
    """Atoms of each molecule."""

    def chosen(self, is_chosen: npt.NDArray[np.bool_]) -> "Structures":
        """Return some of the molecules."""
        atoms = np.repeat(is_chosen, self.sizes)
        return Structures(
            numbers=self.numbers[atoms],
            positions=self.positions[atoms],
            forces=self.forces[atoms],
            energies=self.energies[is_chosen],
            sizes=self.sizes[is_chosen],
        )

    def _composition(self) -> Floats:
        """Return how many atoms of each element each molecule has."""
        counts = np.zeros((len(self.sizes), len(NUMBERS) + 1))
        np.add.at(counts, (np.repeat(np.arange(len(self.sizes)), self.sizes), self.numbers), 1)
        return counts

    def free_energies(self) -> Floats:
        """Return the energy of an atom of each element that explains most of the molecules'."""
        return np.asarray(np.linalg.lstsq(self._composition(), self.energies, rcond=None)[0])

    def less(self, free_energies: Floats) -> "Structures":
        """Return the molecules with the energies that are left beside those of their atoms.

        Total energies are thousands of eV, of which fp32 would keep no chemistry.
        """
        return replace(self, energies=self.energies - self._composition() @ free_energies)


def structures_used(path: Path, *, is_training: bool) -> UsedData:
    """Return how many structures are trained on, or held out."""
    count = len(read_structures(path).sizes)
    used = count - count // HELD_OUT if is_training else count // HELD_OUT
    what = "to train on" if is_training else "held out"
    return UsedData(words=f"structures {what}, {used} of {count}", num_samples=used)


def read_structures(path: Path) -> Structures:
    """Read and check a whole file; `DataError` says what is wrong with it."""
    if path.is_dir() or not path.exists():
        problem = "is a folder" if path.is_dir() else "does not exist"
        raise DataError(f"{path} {problem}; the molecules workload reads {ALLOWED}")
    if path.suffix.lower() not in (".xyz", ".extxyz", ".npz"):
        raise DataError(f"{path} is not called .xyz, .extxyz or .npz; give {ALLOWED}")
    try:
        status = path.stat()
        structures = _read(path, status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except MemoryError as error:
        raise DataError(f"{path} does not fit into this machine's memory") from error
    if len(structures.sizes) < HELD_OUT:
        held = f"{path} holds {len(structures.sizes)} structures; {HELD_OUT} or more are needed"
        raise DataError(f"{held}: one of ten is kept for inference")
    return structures


@lru_cache(maxsize=1)  # the check and the plan read it several times
def _read(path: Path, _changed_ns: int, _size_bytes: int) -> Structures:
    return _read_npz(path) if path.suffix.lower() == ".npz" else _read_xyz(path)


def _read_xyz(path: Path) -> Structures:
    frames = list(_frames(path))
    numbers, positions, forces, energies = zip(*frames, strict=True) if frames else ([],) * 4
    return Structures(
        numbers=np.array([number for frame in numbers for number in frame], dtype=np.int64),
        positions=np.array([row for frame in positions for row in frame]).reshape(-1, 3),
        forces=np.array([row for frame in forces for row in frame]).reshape(-1, 3),
        energies=np.array(energies, dtype=np.float64),
        sizes=np.array([len(frame) for frame in numbers], dtype=np.int64),
    )


def _frames(path: Path) -> Iterator[tuple[list[int], list[Floats], list[Floats], float]]:
    """Yield elements, positions, forces and the energy of each structure."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text; give {ALLOWED}") from error
    place = 0
    while place < len(lines) and any(line.strip() for line in lines[place:]):
        where = f"{path}, line {place + 1}"
        count = lines[place].strip()
        if not WHOLE.fullmatch(count) or int(count) < 1:
            raise DataError(f"{where}: the number of atoms is expected, not {count[:40]!r}")
        last = place + 2 + int(count)
        if last > len(lines):
            raise DataError(
                f"{where}: {count} atoms are said, the file ends after line {len(lines)}"
            )
        columns, energy = _comment(lines[place + 1], where=f"{path}, line {place + 2}")
        atoms = [
            _atom(lines[at].split(), columns=columns, where=f"{path}, line {at + 1}")
            for at in range(place + 2, last)
        ]
        numbers, positions, forces = map(list, zip(*atoms, strict=True))
        _check_apart(np.array(positions), where=where)
        yield numbers, positions, forces, energy
        place = last


def _comment(line: str, *, where: str) -> tuple[dict[str, int], float]:
    """Return where each column begins, and the energy."""
    found = re.findall(r'(\w+)=(?:"([^"]*)"|(\S+))', line)
    values = {key.lower(): quoted or plain for key, quoted, plain in found}
    is_periodic = "t" in values.get("pbc", "t" if "lattice" in values else "f").lower().split()
    if is_periodic or "true" in values.get("pbc", "").lower():
        raise DataError(f'{where}: a periodic cell; molecules have none (pbc="F F F")')
    parts = values.get("properties", "").split(":")
    columns, begin = {}, 0
    for name, width in zip(parts[::3], parts[2::3], strict=False):
        if not WHOLE.fullmatch(width) or WIDTHS.get(name, int(width)) != int(width):
            raise DataError(f"{where}: Properties says {name} has {width[:40]} fields")
        columns[name], begin = begin, begin + int(width)
    if missing := [name for name in WIDTHS if name not in columns]:
        needed = "Properties=species:S:1:pos:R:3:forces:R:3"
        raise DataError(f"{where}: no {' and no '.join(missing)} in Properties; {needed} is needed")
    if "energy" not in values:
        raise DataError(f"{where}: no energy=; the structure's energy in eV is needed")
    return columns, float(_numbers([values["energy"]], what="energy", where=where)[0])


def _atom(fields: list[str], *, columns: dict[str, int], where: str) -> tuple[int, Floats, Floats]:
    if len(fields) < max(begin + WIDTHS.get(name, 1) for name, begin in columns.items()):
        raise DataError(f"{where}: {len(fields)} fields, fewer than Properties says")
    symbol = fields[columns["species"]]
    if symbol not in NUMBERS:
        raise DataError(f"{where}: {symbol!r} is no element from H to Es")
    three = {
        name: _numbers(fields[columns[name] :][:3], what=name, where=where)
        for name in ("pos", "forces")
    }
    return NUMBERS[symbol], three["pos"], three["forces"]


def _numbers(texts: list[str], *, what: str, where: str) -> Floats:
    try:
        values = np.array([float(text) for text in texts])
    except ValueError:
        values = np.array([np.nan])
    if not _are_finite(values):
        raise DataError(f"{where}: {what} is not a finite number: {' '.join(texts)[:60]}")
    return values


def _are_finite(values: Any) -> bool:
    """Return whether all are real and finite in fp32, in which the net computes."""
    return values.dtype.kind in "iuf" and bool((np.abs(values) <= np.finfo(np.float32).max).all())


def _check_apart(positions: Floats, *, where: str) -> None:
    squared = np.square(positions[:, None] - positions[None]).sum(2)
    np.fill_diagonal(squared, np.inf)
    if squared.min(initial=np.inf) < 1e-6:
        raise DataError(f"{where}: two atoms of this structure are at the same place")


def _read_npz(path: Path) -> Structures:
    try:
        with zipfile.ZipFile(path):
            pass  # what is none, such as a .npy, numpy would load in another way
        with np.load(path, allow_pickle=False) as file:
            arrays: dict[str, Any] = {name: file[name] for name in RMD17 if name in file}
    except (ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} is no .npz of plain arrays: {error}") from error
    if missing := [name for name in RMD17 if name not in arrays]:
        raise DataError(f"{path} lacks {', '.join(missing)}; rMD17 files have {', '.join(RMD17)}")
    charges, coords = arrays["nuclear_charges"], arrays["coords"]
    if coords.ndim != 3 or coords.shape[1] == 0:
        raise DataError(f"{path}: coords has shape {coords.shape}, not (structures, atoms, 3)")
    count, atoms, _ = coords.shape
    wanted = {
        "coords": (count, atoms, 3),
        "nuclear_charges": (atoms,),
        "energies": (count,),
        "forces": (count, atoms, 3),
    }
    for name, shape in wanted.items():
        if arrays[name].shape != shape:
            raise DataError(f"{path}: {name} has shape {arrays[name].shape}, not {shape}")
        if not _are_finite(arrays[name]):
            raise DataError(f"{path}: {name} holds values that are not finite real numbers")
    if charges.min() < 1 or charges.max() > len(NUMBERS) or (charges % 1).any():
        raise DataError(f"{path}: nuclear_charges must be whole numbers from 1 to {len(NUMBERS)}")
    for index, positions in enumerate(coords):
        _check_apart(positions, where=f"{path}, structure {index}")
    return Structures(
        numbers=np.tile(charges.astype(np.int64), count),
        positions=coords.reshape(-1, 3).astype(np.float64),
        forces=arrays["forces"].reshape(-1, 3) * KCAL_PER_MOL_EV,
        energies=arrays["energies"] * KCAL_PER_MOL_EV,
        sizes=np.full(count, atoms),
    )

"""Molecules: exact generated forces, a net with the symmetries of space, and the field's files."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.cli import main
from bench.core.errors import DataError
from bench.measure.engine.feed import make_loader
from tests.workloads.steps_of_workloads import LiveBytes
from workloads._molecules.molecule_files import KCAL_PER_MOL_EV, read_structures
from workloads._molecules.molecules_data import morse, neighbours
from workloads.molecules import INFER, TRAIN, Workload

TINY = Workload(**Workload.sizes["tiny"])
COMMENT = 'Properties=species:S:1:pos:R:3:forces:R:3 energy={energy} pbc="F F F"'


def batch_of(workload: Workload = TINY, *, data: Path | None = None, count: int = 4) -> Any:
    samples = workload.dataset(TRAIN, data=data, seed=3)
    return workload.collate(TRAIN)([samples[index] for index in range(count)])


def test_the_published_sizes_have_their_parameters_and_flops() -> None:
    base, large = (Workload(**Workload.sizes[size]) for size in ("base", "large"))
    assert base.num_parameters() == 589_057
    assert large.num_parameters() == pytest.approx(18.7e6, rel=1e-3)
    # A forward of 128 x 3 at 20 atoms, by hand: messages, filters, mixing, updates, head.
    products = 20 * 8 * 128**2 + 380 * 6 * 20 * 128 + 20 * 12 * 128**2 + 20 * 10 * 128**2
    forward = 3 * products + 20 * (128**2 + 128)
    assert replace(base, forces=False).flops_per_item(INFER) == forward
    infer, train = base.flops_per_item(INFER), base.flops_per_item(TRAIN)
    assert infer / forward == pytest.approx(1.945, abs=1e-3)
    assert train / infer == pytest.approx(3.0, abs=1e-3)


def test_generated_forces_are_the_slope_of_the_generated_energy() -> None:
    rng = np.random.default_rng(0)
    positions, wells = rng.normal(size=(2, 5, 3)), np.full((2, 5, 5), 1.1)
    wells[:, 0] = wells[:, :, 0] = 1.4
    _, forces = morse(positions, wells=wells, width=1.3, cutoff=9.0)
    for place in np.ndindex(2, 5, 3):
        step = np.zeros_like(positions)
        step[place] = 1e-6
        ends = [morse(positions + sign * step, wells=wells, width=1.3, cutoff=9.0)[0]
                for sign in (1, -1)]  # fmt: skip
        slope = (ends[0] - ends[1])[place[0]] / 2e-6
        assert forces[place] == pytest.approx(-slope, rel=1e-5, abs=1e-7)


def test_clusters_keep_within_the_cutoff_and_atoms_their_distance() -> None:
    for changed in ({}, {"atoms": 40, "neighbours": 12, "cutoff": 8.0}):
        workload = replace(TINY, **changed)
        samples = workload.dataset(INFER, data=None, seed=0)
        other = workload.dataset(TRAIN, data=None, seed=0)
        assert not torch.equal(samples[0]["positions"], other[0]["positions"])
        again = workload.dataset(INFER, data=None, seed=0)
        for index in (0, 5, len(samples) - 1):
            sample = samples[index]
            assert all(torch.equal(sample[key], again[index][key]) for key in sample)
            distances = torch.pdist(sample["positions"])
            assert 0.1 * workload.cutoff < distances.min() and distances.max() < workload.cutoff
            assert sample["edges"].shape == (2, workload.edges)
            assert sample["forces"].sum(0).abs().max() < 1e-4


def test_neighbours_are_those_within_the_cutoff_and_of_these_the_nearest() -> None:
    positions = np.random.default_rng(1).normal(size=(12, 3))
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    every = neighbours(positions, cutoff=1.5, most=50).T.tolist()
    assert every == [[i, j] for i in range(12) for j in range(12)
                     if i != j and distances[i, j] < 1.5]  # fmt: skip
    nearest = neighbours(positions, cutoff=9.0, most=3)
    for atom in range(12):
        nearest_ones = sorted(nearest[1][nearest[0] == atom])
        assert nearest_ones == sorted(np.argsort(distances[atom])[1:4])


def test_energy_and_forces_turn_and_move_with_the_molecule() -> None:
    torch.manual_seed(0)
    net, batch = TINY.build_net().double().eval(), batch_of()
    batch = {k: v.double() if v.is_floating_point() else v for k, v in batch.items()}
    energies, forces = TINY.infer(net, batch)
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    moved = {**batch, "positions": batch["positions"] @ turn + 7.0}
    turned_energies, turned_forces = TINY.infer(net, moved)
    torch.testing.assert_close(turned_energies, energies)
    torch.testing.assert_close(turned_forces, forces @ turn)
    # The forces are the slope of the energy.
    for place in ((0, 0), (9, 2)):
        step = torch.zeros_like(batch["positions"])
        step[place] = 1e-5
        ends = [net.energies(batch, batch["positions"] + sign * step) for sign in (1, -1)]
        slope = (ends[0] - ends[1]).sum() / 2e-5
        torch.testing.assert_close(forces[place], -slope.detach(), rtol=1e-5, atol=1e-8)


def test_a_molecule_in_a_batch_is_the_molecule_alone() -> None:
    torch.manual_seed(0)
    net, samples = TINY.build_net().eval(), TINY.dataset(TRAIN, data=None, seed=3)
    batch, joined = batch_of(), TINY.collate(INFER)
    each = [joined([samples[index]]) for index in range(4)]
    with torch.inference_mode():  # as the harness does; the batches were made outside
        energies, forces = TINY.infer(net, batch)
        for index, one in enumerate(each):
            energy, force = TINY.infer(net, one)
            torch.testing.assert_close(energies[index : index + 1], energy)
            torch.testing.assert_close(forces[7 * index : 7 * index + 7], force)
        alone, none = replace(TINY, forces=False).infer(net, batch)
    assert none is None and torch.equal(alone, energies)
    assert not energies.requires_grad and not forces.requires_grad


# Files -------------------------------------------------------------------------------------------


def write_xyz(path: Path, *, sizes: list[int]) -> Path:
    """Write extended XYZ of random molecules, one column more than is needed."""
    rng, lines = np.random.default_rng(5), []
    for size in sizes:
        comment = "Properties=pos:R:3:species:S:1:tag:I:1:forces:R:3"
        lines += [str(size), f'{comment} energy={-1000.0 * size + rng.normal()} note="a b=c"']
        for place in rng.permutation(64)[:size]:
            position = 1.4 * np.array(np.unravel_index(place, (4, 4, 4))) + rng.normal(size=3) / 10
            numbers = [*position, rng.choice(["H", "C", "O"]), 1, *rng.normal(size=3)]
            lines.append(" ".join(map(str, numbers)))
    path.write_text("\n".join(lines) + "\n")
    return path


def test_extended_xyz_of_uneven_molecules_is_trained_on_counted_and_covered(tmp_path: Path) -> None:
    data = write_xyz(tmp_path / "mixed.xyz", sizes=[3, 9, 5, 1] * 10)
    TINY.check_data(data)
    held_out = TINY.dataset(INFER, data=data, seed=0)
    assert len(held_out) == 4 and len(TINY.dataset(TRAIN, data=data, seed=0)) == 36
    assert [len(held_out[index]["numbers"]) for index in range(4)] == [9, 1, 9, 1]
    batch = batch_of(data=data, count=16)
    assert TINY.items(TRAIN, batch) == 16 and TINY.elements(TRAIN, batch) == 66
    assert batch["energy"].abs().max() < 10  # what free atoms explain is taken out
    net = TINY.build_net().train()
    with FlopCounterMode(display=False) as counter:
        TINY.loss(net, batch).backward()
    counted = counter.get_total_flops()
    assert TINY.flops_per_item(TRAIN, batch) * 16 == pytest.approx(counted, rel=1e-12)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    net.zero_grad()
    with LiveBytes(net, batch) as live:
        TINY.loss(net, batch).backward()
    estimate = TINY.sized_as(TRAIN, batch).memory_bytes(TRAIN, dtype="fp32")
    assert 1.0 < estimate / live.peak_bytes < 1.6
    assert TINY.sized_for(TRAIN, data).atoms == 9


def rmd17(**changed: Any) -> dict[str, Any]:
    rng = np.random.default_rng(2)
    coords = rng.normal(size=(20, 6, 3)) * 2
    arrays = {"nuclear_charges": np.array([6, 1, 1, 1, 8, 1], np.uint8), "coords": coords,
              "energies": rng.normal(size=20) - 9e4, "forces": rng.normal(size=(20, 6, 3)),
              "old_indices": np.arange(20)}  # fmt: skip
    return {name: value for name, value in {**arrays, **changed}.items() if value is not None}


def test_rmd17_gives_the_molecules_that_the_same_extended_xyz_gives(tmp_path: Path) -> None:
    arrays, lines = rmd17(), []
    np.savez(tmp_path / "one.npz", **arrays)
    for energy, coords, forces in zip(arrays["energies"], arrays["coords"], arrays["forces"],
                                      strict=True):  # fmt: skip
        lines += ["6", COMMENT.format(energy=energy * KCAL_PER_MOL_EV)]
        for symbol, where, force in zip("CHHHOH", coords, forces * KCAL_PER_MOL_EV, strict=True):
            lines.append(" ".join([symbol, *map(str, where), *map(str, force)]))
    (tmp_path / "one.extxyz").write_text("\n".join(lines))
    one, other = (read_structures(tmp_path / name) for name in ("one.npz", "one.extxyz"))
    for name in ("numbers", "positions", "forces", "energies", "sizes"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-12)
    other = read_structures(tmp_path / "one.extxyz")
    assert read_structures(tmp_path / "one.extxyz") is other, "a plan reads it several times"
    (tmp_path / "one.extxyz").write_text("\n".join(lines[8:]))
    assert len(read_structures(tmp_path / "one.extxyz").sizes) == len(other.sizes) - 1
    ev_kcal_per_mol = 1 / KCAL_PER_MOL_EV
    assert ev_kcal_per_mol == pytest.approx(23.0605, abs=1e-4)


ATOM = "H 0 0 0 1 1 1\n"
GOOD = COMMENT.format(energy=1)
BAD_XYZ = {
    "two": "line 1: the number of atoms is expected, not 'two'",
    f"2\n{GOOD}\n{ATOM}": "line 1: 2 atoms are said, the file ends after line 3",
    f"1\nenergy=1\n{ATOM}": "line 2: no species and no pos and no forces in Properties",
    f"1\n{GOOD.replace('forces:R:3', 'magmom:R:1')}\n{ATOM}": "line 2: no forces in Properties",
    f"1\n{GOOD.replace('forces:R:3', 'forces:R:1')}\n{ATOM}": "Properties says forces has 1",
    f"1\n{GOOD.replace('energy', 'dipole')}\n{ATOM}": "line 2: no energy=",
    f"1\n{COMMENT.format(energy='nan')}\n{ATOM}": "line 2: energy is not a finite number: nan",
    f"1\n{GOOD.replace('F F F', 'T T F')}\n{ATOM}": "line 2: a periodic cell",
    f"1\n{GOOD.replace('pbc', 'Lattice')}\n{ATOM}": "line 2: a periodic cell",
    f"1\n{GOOD}\nH 0 0 0 1 1\n": "line 3: 6 fields, fewer than Properties says",
    f"1\n{GOOD}\nXx 0 0 0 1 1 1\n": "line 3: 'Xx' is no element",
    f"1\n{GOOD}\nH 0 0 zero 1 1 1\n": "line 3: pos is not a finite number: 0 0 zero",
    f"1\n{GOOD}\nH 0 0 0 1 inf 1\n": "line 3: forces is not a finite number",
    f"2\n{GOOD}\n{ATOM}{ATOM}": "line 1: two atoms of this structure are at the same place",
    f"1\n{GOOD}\n{ATOM}" * 3: "holds 3 structures; 10 or more are needed",
    "9" * 5000: "line 1: the number of atoms is expected, not '999",
    f"1\n{GOOD.replace('pos:R:3', 'pos:R:' + '3' * 5000)}\n{ATOM}": "Properties says pos has 333",
    f"1\n{GOOD}\nH 0 0 0 1 1e39 1\n": "line 3: forces is not a finite number",
    "": "holds 0 structures",
}
BAD_NPZ = {
    "lacks forces; rMD17 files have": {"forces": None},
    "forces has shape .20, 5, 3., not .20, 6, 3.": {"forces": np.zeros((20, 5, 3))},
    "energies holds values that are not finite": {"energies": np.full(20, np.nan)},
    "nuclear_charges must be whole numbers from 1 to 99": {"nuclear_charges": np.full(6, 120)},
    "nuclear_charges must be whole": {"nuclear_charges": np.full(6, 1.5)},
    "energies holds values that are not finite real": {"energies": np.full(20, 1 + 1j)},
    "forces holds values that are not finite": {"forces": np.full((20, 6, 3), np.inf)},
    "coords has shape .20, 0, 3., not": {
        "coords": np.zeros((20, 0, 3)),
        "nuclear_charges": np.zeros(0, int),
        "forces": np.zeros((20, 0, 3)),
    },
    "no .npz of plain arrays: .*allow_pickle": {"energies": np.array([None] * 20)},
    "structure 0: two atoms": {"coords": np.zeros((20, 6, 3))},
    "coords has shape .20,., not": {"coords": np.zeros(20)},
}


def test_a_bad_file_is_named_with_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.xyz"
    for text, words in BAD_XYZ.items():
        path.write_text(text)
        with pytest.raises(DataError, match=words) as caught:
            TINY.check_data(path)
        assert str(path) in str(caught.value), words
    path = tmp_path / "bad.npz"
    for words, changed in BAD_NPZ.items():
        np.savez(path, **rmd17(**changed))
        with pytest.raises(DataError, match=words) as caught:
            TINY.check_data(path)
        assert str(path) in str(caught.value), words
    (tmp_path / "bad.extxyz").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "text.npz").write_text("1")
    (tmp_path / "bad.sdf").write_text("1")
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "one.npy").rename(tmp_path / "renamed.npz")
    for name, words in {"bad.extxyz": "is not text", "text.npz": "no .npz of plain arrays",
                        "renamed.npz": "no .npz of plain arrays",
                        "bad.sdf": "is not called .xyz", ".": "is a folder",
                        "none.xyz": "does not exist"}.items():  # fmt: skip
        with pytest.raises(DataError, match=words):
            TINY.check_data(tmp_path / name)
    line = f"run --workload molecules --size tiny --device cpu --data {tmp_path}/bad.npz"
    assert main(line.split()) == 2
    assert "bad.npz: coords has shape" in capsys.readouterr().err


def test_what_does_not_fit_into_memory_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "large.npz", **rmd17())
    monkeypatch.setattr(np, "load", lambda *_, **__: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(DataError, match="large.npz does not fit into this machine's memory"):
        TINY.check_data(tmp_path / "large.npz")


@pytest.mark.parametrize(
    ("phase", "strategy", "words"),
    [("train", "tp", "use --parallel ddp, or"), ("train", "pp", "use --parallel ddp, or"),
     ("infer", "tp", "run one device, or"), ("infer", "ddp", "run one device")],
)  # fmt: skip
def test_only_layouts_that_are_possible_are_offered(
    phase: str, strategy: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = f"run --workload molecules:{phase} --size tiny --device cpu --parallel {strategy}"
    assert main([*line.split(), "--devices", "2", "--link", "10gbe"]) == 2
    err = capsys.readouterr().err
    assert words in err and "fsdp" not in err


def test_fewer_structures_than_a_batch_are_refused(tmp_path: Path) -> None:
    data = write_xyz(tmp_path / "few.xyz", sizes=[3] * 40)
    assert make_loader(TINY, TRAIN, data=data, seed=0).batch_size == 16
    eight = make_loader(replace(TINY, batch=3), INFER, data=data, seed=0)
    assert [len(one["num_atoms"]) for one in eight] == [3], "of four structures a whole batch"
    with pytest.raises(DataError, match="few.xyz: 4 samples for infer, but a batch takes 16"):
        make_loader(TINY, INFER, data=data, seed=0)


@pytest.mark.parametrize("flag", ["--parallel fsdp --devices 2 --link 10gbe", "--compile"])
def test_what_cannot_go_through_a_backward_twice_is_refused_in_one_line(
    flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = f"run --workload molecules:train --size tiny --device cpu {flag}"
    assert main(line.split()) == 2
    err = capsys.readouterr().err
    assert f"{flag.partition(' --devices')[0]} is not for molecules-train: forces are" in err
    assert err.strip().count("\n") == 0
    assert not replace(TINY, forces=False).refused(INFER) and replace(TINY, forces=False).refused(
        TRAIN
    )

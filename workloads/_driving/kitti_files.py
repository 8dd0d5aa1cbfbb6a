"""Sweeps, boxes and calibration of a KITTI object folder; numpy only.

`velodyne/NNNNNN.bin` (float32 x, y, z, reflectance), `label_2/NNNNNN.txt` (boxes in the camera's
axes), `calib/NNNNNN.txt` (P2, R0_rect, Tr_velo_to_cam), in the folder itself or in its `training`:
https://www.cvlibs.net/datasets/kitti/eval_object.php. Boxes are labelled only where the camera
sees, so points outside its picture are left out, as practice does. What is wrong is said with file
and line.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.core.errors import DataError
from bench.workload import NUM_READ_WHOLE, UsedData
from workloads._driving.driving_cost import CLASSES, PillarShape

Floats = npt.NDArray[np.float64]
PICTURE = (1242, 375)
"""Its width and height in pixels; a few of KITTI's differ by some."""
MATRICES = {"P2": (3, 4), "R0_rect": (3, 3), "Tr_velo_to_cam": (3, 4)}
HELD_OUT = 10
"""Each tenth sweep is kept from training, and inferred."""
POINT_BYTES = 16
NEEDED = "a KITTI folder has velodyne/*.bin, label_2/*.txt and calib/*.txt, or these in training"


@dataclass(frozen=True, kw_only=True)
class KittiFrame:
    """Paths of one sweep."""

    sweep: Path
    labels: Path
    calibration: Path

    def points(self) -> npt.NDArray[np.float32]:
        """Return the points (n, 4) that the camera sees."""
        try:
            points = np.fromfile(self.sweep, dtype=np.float32).reshape(-1, 4)
        except (OSError, ValueError) as error:
            raise DataError(f"{self.sweep} cannot be read as points: {error}") from error
        if not np.isfinite(points).all():
            number = int(np.isfinite(points).all(1).argmin())
            raise DataError(f"{self.sweep}: point {number} is not finite: {points[number]}")
        matrices = self.matrices()
        seen = _with_ones(points[:, :3]) @ (matrices["R0_rect"] @ matrices["Tr_velo_to_cam"]).T
        on_picture = _with_ones(seen) @ matrices["P2"].T
        ahead = on_picture[:, 2] > 0
        place = on_picture[:, :2] / np.where(ahead, on_picture[:, 2], 1)[:, None]
        return points[ahead & ((place >= 0) & (place < PICTURE)).all(1)]

    def boxes(self) -> tuple[list[str], Floats]:
        """Return names, and boxes (n, 7) in the sweep's axes: middle, sizes, yaw."""
        matrices, names, boxes = self.matrices(), [], []
        turn = matrices["R0_rect"] @ matrices["Tr_velo_to_cam"][:, :3]
        shift = matrices["R0_rect"] @ matrices["Tr_velo_to_cam"][:, 3]
        for number, line in enumerate(_lines(self.labels), start=1):
            name, *texts = line.split() or [""]
            if name in ("", "DontCare"):
                continue
            where = f"{self.labels}, line {number}"
            if len(texts) not in (14, 15):
                raise DataError(f"{where}: {len(texts) + 1} fields; a box of KITTI has 15")
            values = _numbers(texts, where=where)
            height, width, length, *bottom, yaw = values[7:14]
            if min(height, width, length) <= 0:
                raise DataError(f"{where}: a {name} of {height} x {width} x {length} m")
            middle = np.linalg.solve(turn, np.array(bottom) - shift) + [0, 0, height / 2]
            names.append(name)
            boxes.append([*middle, length, width, height, -yaw - np.pi / 2])
        return names, np.array(boxes).reshape(-1, 7)

    def matrices(self) -> dict[str, Floats]:
        """Return the matrices of the calibration."""
        found = {}
        for number, line in enumerate(_lines(self.calibration), start=1):
            name, _, rest = line.partition(":")
            if name in MATRICES:
                where = f"{self.calibration}, line {number}"
                values, shape = _numbers(rest.split(), where=where), MATRICES[name]
                if values.size != np.prod(shape):
                    raise DataError(f"{where}: {name} has {values.size} numbers, not {shape}")
                found[name] = values.reshape(shape)
        if missing := [name for name in MATRICES if name not in found]:
            raise DataError(f"{self.calibration} lacks {', '.join(missing)}")
        if abs(np.linalg.det(found["R0_rect"] @ found["Tr_velo_to_cam"][:, :3])) < 0.5:
            raise DataError(f"{self.calibration}: R0_rect and Tr_velo_to_cam are no rotation")
        return found

    def check(self) -> None:
        """Raise `DataError` for what cannot be used of this sweep's files."""
        if not self.sweep.is_file():
            raise DataError(f"{self.sweep} is no file; {NEEDED}")
        size = self.sweep.stat().st_size
        if size == 0 or size % POINT_BYTES:
            raise DataError(f"{self.sweep} has {size} bytes; points of {POINT_BYTES} are needed")
        for path in (self.labels, self.calibration):
            if not path.is_file():
                raise DataError(f"{path} does not exist, but {self.sweep.name} does; {NEEDED}")
        self.boxes()


def frames(folder: Path) -> list[KittiFrame]:
    """Return the sweeps of a folder in order; none of them is read."""
    root = folder / "training" if (folder / "training").is_dir() else folder
    if not (root / "velodyne").is_dir():
        raise DataError(f"{folder} has no folder velodyne; {NEEDED}")
    sweeps = sorted((root / "velodyne").glob("*.bin"))
    if len(sweeps) < HELD_OUT:
        held = f"{root / 'velodyne'} holds {len(sweeps)} sweeps; {HELD_OUT} or more are needed"
        raise DataError(f"{held}: one of ten is kept for inference")
    return [
        KittiFrame(
            sweep=sweep,
            labels=root / "label_2" / f"{sweep.stem}.txt",
            calibration=root / "calib" / f"{sweep.stem}.txt",
        )
        for sweep in sweeps
    ]


def chosen(folder: Path, *, is_training: bool) -> list[KittiFrame]:
    """Return the sweeps that are trained on, or those that are inferred."""
    every = enumerate(frames(folder))
    return [one for index, one in every if (index % HELD_OUT == HELD_OUT - 1) != is_training]


def check_folder(folder: Path) -> None:
    """Raise `DataError` for the first file that cannot be used."""
    found = frames(folder)
    for frame in found:
        frame.check()
    for frame in found[:NUM_READ_WHOLE]:
        frame.points()


def why_left_out(names: list[str], boxes: Floats, *, shape: PillarShape) -> list[str]:
    """Return of each box why it is not used, '' for those that are."""
    ahead_m, side_m = shape.extent_m
    is_on = (boxes[:, 0] >= 0) & (boxes[:, 0] < ahead_m) & (np.abs(boxes[:, 1]) < side_m)
    known = CLASSES[: shape.classes]
    return [
        ("" if on else "outside of the grid") if name in known else f"called {name[:40]}"
        for name, on in zip(names, is_on, strict=True)
    ]


def boxes_used(folder: Path, *, shape: PillarShape, is_training: bool) -> UsedData:
    """Return how many sweeps and boxes are used, and why other boxes are left out.

    `DataError` where there is no box to train on.
    """
    found, counts = chosen(folder, is_training=is_training), Counter[str]()
    for frame in found:
        counts.update(why_left_out(*frame.boxes(), shape=shape))
    used = counts.pop("", 0)
    others = "".join(f"; left out: {count} {why}" for why, count in counts.most_common(10))
    names = ", ".join(CLASSES[: shape.classes])
    if is_training and not used:
        more = f"; --set classes={len(CLASSES)} knows {', '.join(CLASSES)}"
        raise DataError(
            f"{folder} has no box to train on of {names} on the grid of this size, "
            f"{shape.extent_m[0]:.0f} m ahead and {shape.extent_m[1]:.0f} m to each side{others}"
            f"{more if shape.classes < len(CLASSES) else ''}"
        )
    words = f"{len(found)} sweeps with {used} boxes of {names}{others}"
    return UsedData(words=words, num_samples=len(found))


def _with_ones(points: npt.NDArray[Any]) -> Floats:
    return np.concatenate([points, np.ones((len(points), 1))], axis=1)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text: {error}") from error


def _numbers(texts: list[str], *, where: str) -> Floats:
    try:
        values = np.array([float(text) for text in texts])
    except ValueError:
        values = np.array([np.nan])
    if not np.isfinite(values).all():
        raise DataError(f"{where}: not all are finite numbers: {' '.join(texts)[:80]}")
    return values

import pickle
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from bench.core.errors import DataError
from workloads._llm import text as texts


def test_stationary_distribution_does_not_move_under_the_transition_matrix() -> None:
    stationary = texts.stationary_distribution()
    assert stationary.sum() == pytest.approx(1.0)
    assert (stationary > 0).all()
    np.testing.assert_allclose(stationary @ texts.transition_matrix(), stationary, atol=1e-12)


def test_generated_windows_depend_on_seed_and_index_only() -> None:
    first, again = (texts.MarkovWindows(length=40, seed=5) for _ in range(2))
    other_seed = texts.MarkovWindows(length=40, seed=6)
    assert torch.equal(first[12], again[12])
    assert not torch.equal(first[12], first[13])
    assert not torch.equal(first[12], other_seed[12])
    assert torch.equal(pickle.loads(pickle.dumps(first))[12], first[12])
    assert first[3].dtype == torch.int64 and first[3].shape == (40,)
    assert torch.equal(first[-1], first[len(first) - 1])
    with pytest.raises(IndexError):
        first[len(first)]


def test_windows_of_a_long_file_tile_it_in_the_seeds_order(tmp_path: Path) -> None:
    text = bytes(np.random.default_rng(0).integers(32, 127, size=300 * 50, dtype=np.uint8))
    path = tmp_path / "long.txt"
    path.write_bytes(text)
    first, again, other = (
        [bytes(window.tolist()) for window in texts.FileWindows(path, length=50, seed=seed)]
        for seed in (1, 1, 2)
    )
    assert len(first) == 300
    assert set(first) == {text[i : i + 50] for i in range(0, 15_000, 50)}
    assert first == again != other


def test_short_files_give_overlapping_windows(tmp_path: Path) -> None:
    path = tmp_path / "short.txt"
    for size, expected in [(20, 1), (29, 10), (20 + 255 * 3, 256)]:
        path.write_bytes((bytes(range(32, 127)) * 20)[:size])
        windows = texts.FileWindows(path, length=20, seed=0)
        assert len(windows) == expected
        assert all(len(window) == 20 for window in windows)


def test_any_byte_is_a_token(tmp_path: Path) -> None:
    path = tmp_path / "utf8.txt"
    path.write_text("Ünïcødé – ≈ 3 µs", encoding="utf-8")
    window = texts.FileWindows(path, length=path.stat().st_size, seed=0)[0]
    assert bytes(window.tolist()).decode("utf-8") == "Ünïcødé – ≈ 3 µs"


def test_a_good_file_passes_and_an_unusable_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = tmp_path / "good.txt"
    good.write_text("a" * 100)
    texts.check_file(good, fewest_bytes=100)
    (tmp_path / "folder").mkdir()
    for name, content in [("empty", b""), ("short", b"a" * 99), ("nul", b"a\0b" * 100)]:
        (tmp_path / name).write_bytes(content)
    problems = {
        "empty": "is empty",
        "short": "has 99 bytes",
        "nul": "holds NUL bytes",
        "none": "does not exist",
        "folder": "is a folder",
        "good.txt": "cannot be read: Permission denied",
    }
    for name, problem in problems.items():
        if name == "good.txt":
            error = PermissionError(13, "Permission denied")
            monkeypatch.setattr(Path, "open", Mock(side_effect=error))
        with pytest.raises(DataError, match=f"{tmp_path / name} {problem}") as caught:
            texts.check_file(tmp_path / name, fewest_bytes=100)
        assert "\n" not in str(caught.value)

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.core.errors import DataError
from tests.workloads import learning
from workloads._llm import text as texts


def test_stationary_distribution_does_not_move_under_the_transition_matrix() -> None:
    stationary = texts.stationary_distribution()
    assert stationary.sum() == pytest.approx(1.0)
    assert (stationary > 0).all()
    np.testing.assert_allclose(stationary @ texts.transition_matrix(), stationary, atol=1e-12)


def test_entropy_of_hand_worked_distributions() -> None:
    assert learning.entropy_nats(np.array([1.0, 0.0])) == 0.0
    assert learning.entropy_nats(np.array([0.5, 0.25, 0.25])) == pytest.approx(1.5 * np.log(2))
    assert learning.unigram_entropy_nats(np.array([[7, 7], [9, 9]])) == pytest.approx(np.log(2))


def test_knowing_the_previous_byte_is_worth_at_least_two_nats() -> None:
    gain = learning.source_unigram_entropy_nats() - learning.source_entropy_rate_nats()
    assert gain > 2.0


def test_generated_text_has_the_entropies_of_its_source() -> None:
    windows = texts.MarkovWindows(length=1000, seed=3)
    sample = np.stack([windows[index].numpy() for index in range(60)])
    unigram = learning.unigram_entropy_nats(sample)
    assert unigram == pytest.approx(learning.source_unigram_entropy_nats(), rel=0.01)
    states = sample - texts.FIRST_BYTE
    steps = texts.transition_matrix()[states[:, :-1], states[:, 1:]]
    assert -np.log(steps).mean() == pytest.approx(learning.source_entropy_rate_nats(), rel=0.02)


def test_generated_windows_depend_on_seed_and_index_only() -> None:
    first, again = (texts.MarkovWindows(length=40, seed=5) for _ in range(2))
    other_seed = texts.MarkovWindows(length=40, seed=6)
    assert torch.equal(first[12], again[12])
    assert not torch.equal(first[12], first[13])
    assert not torch.equal(first[12], other_seed[12])
    assert torch.equal(pickle.loads(pickle.dumps(first))[12], first[12])


def test_windows_are_sequences_that_end() -> None:
    windows = texts.MarkovWindows(length=10, seed=0)
    assert windows[3].dtype == torch.int64
    assert windows[3].shape == (10,)
    assert torch.equal(windows[-1], windows[len(windows) - 1])
    with pytest.raises(IndexError):
        windows[len(windows)]


def test_windows_of_a_long_file_tile_it(tmp_path: Path) -> None:
    text = bytes(np.random.default_rng(0).integers(32, 127, size=300 * 50, dtype=np.uint8))
    path = tmp_path / "long.txt"
    path.write_bytes(text)
    windows = texts.FileWindows(path, length=50, seed=1)
    assert len(windows) == 300
    assert {bytes(w.tolist()) for w in windows} == {text[i : i + 50] for i in range(0, 15_000, 50)}


def test_order_of_file_windows_follows_the_seed(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(bytes(range(32, 127)) * 100)
    same = [texts.FileWindows(path, length=20, seed=1)[0].tolist() for _ in range(2)]
    assert same[0] == same[1]
    starts = [
        [w[0].item() for w in texts.FileWindows(path, length=20, seed=seed)] for seed in (1, 2)
    ]
    assert starts[0] != starts[1]


@pytest.mark.parametrize(("size", "expected"), [(20, 1), (29, 10), (20 + 255 * 3, 256)])
def test_short_files_give_overlapping_windows(tmp_path: Path, size: int, expected: int) -> None:
    path = tmp_path / "short.txt"
    path.write_bytes((bytes(range(32, 127)) * 20)[:size])
    windows = texts.FileWindows(path, length=20, seed=0)
    assert len(windows) == expected
    assert all(len(window) == 20 for window in windows)


def test_any_byte_is_a_token(tmp_path: Path) -> None:
    path = tmp_path / "utf8.txt"
    path.write_text("Ünïcødé – ≈ 3 µs", encoding="utf-8")
    window = texts.FileWindows(path, length=path.stat().st_size, seed=0)[0]
    assert bytes(window.tolist()).decode("utf-8") == "Ünïcødé – ≈ 3 µs"


def refuse(*_: object, **__: object) -> None:
    raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda path: path.write_text("a" * 100), None),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_text("a" * 99), "has 99 bytes"),
        (lambda path: path.write_bytes(b"a\0b" * 100), "NUL bytes"),
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: path.write_text("a" * 100), "Permission denied"),
    ],
)
def test_a_good_file_passes_and_an_unusable_one_is_named(
    tmp_path: Path,
    make: Callable[[Path], object],
    problem: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "text.txt"
    make(path)
    if problem == "Permission denied":
        monkeypatch.setattr(Path, "open", refuse)
    if problem is None:
        texts.check_file(path, fewest_bytes=100)
        return
    with pytest.raises(DataError, match=problem) as caught:
        texts.check_file(path, fewest_bytes=100)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)

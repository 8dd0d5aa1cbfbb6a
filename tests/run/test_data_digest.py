"""What a row calls its data: content, not place, time or what a system leaves in a folder."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.core.errors import DataError
from bench.run.planning.data_digest import PART_BYTES, digest_of

HOUR_S = 3600


def write(path: Path, content: bytes, *, ago_s: int = HOUR_S) -> Path:
    """Write a file as one that was left alone for a while."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    then = path.stat().st_mtime - ago_s
    os.utime(path, (then, then))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in {"a.txt": b"12345", "b/c.bin": b"\0" * 10, "b/empty": b""}.items():
        write(tmp_path / "data" / name, content)
    return tmp_path / "data"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=9), other=st.binary(max_size=9), ago_s=st.integers(0, HOUR_S))
def test_equal_content_and_only_that_is_equal(
    tmp_path: Path, content: bytes, other: bytes, ago_s: int
) -> None:
    before = digest_of(str(write(tmp_path / "one" / "a", content).parent))
    assert before.startswith("content-")
    for again in (content, other):
        write(tmp_path / "two" / "a", again, ago_s=ago_s)
        assert (digest_of(str(tmp_path / "two")) == before) == (again == content)


def test_names_count_links_are_followed_once_and_what_systems_add_does_not_count(
    folder: Path, tmp_path: Path
) -> None:
    before = digest_of(str(folder))
    for name in ("._a.txt", ".DS_Store", "b/.DS_Store", "b/Thumbs.db", ".git/HEAD", "__MACOSX/x"):
        write(folder / name, b"1")
    assert digest_of(str(folder)) == before
    elsewhere = (folder / "b").rename(tmp_path / "elsewhere")
    (folder / "b").symlink_to(elsewhere)
    (elsewhere / "loop").symlink_to(folder)
    assert digest_of(str(folder)) == before
    write(elsewhere / "c.bin", b"\1" * 10, ago_s=2 * HOUR_S)
    changed = digest_of(str(folder))
    (folder / "a.txt").rename(folder / "z.txt")
    assert len({before, changed, digest_of(str(folder))}) == 3


def test_size_and_parts_of_a_large_file_are_read(tmp_path: Path) -> None:
    content = bytes(5 * PART_BYTES)
    places = (0, 5 * PART_BYTES // 2, 5 * PART_BYTES - 1)
    changed = [content[:at] + b"1" + content[at + 1 :] for at in places]
    found = []
    for number, one in enumerate([content, *changed, content + b"\0"]):
        path = write(tmp_path / "volume.nii", one, ago_s=number * HOUR_S)
        found.append(digest_of(str(path)))
    assert len(set(found)) == 5


def test_files_are_read_again_only_when_they_changed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    opened: list[Path] = []
    open_of = Path.open

    def counted(path: Path, *words: str, **more: str) -> object:
        if path.is_relative_to(folder):
            opened.append(path)
        return open_of(path, *words, **more)

    monkeypatch.setattr(Path, "open", counted)
    before = digest_of(str(folder))
    assert len(opened) == 3
    assert digest_of(str(folder)) == before and len(opened) == 3
    # The same size and time, by another file.
    stamp = (folder / "a.txt").stat()
    write(folder / "new", b"54321").replace(folder / "a.txt")
    os.utime(folder / "a.txt", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    opened.clear()
    assert digest_of(str(folder)) != before and opened == [folder / "a.txt"]
    # Just written: the next change could have the same time.
    write(folder / "a.txt", b"12345", ago_s=0)
    assert digest_of(str(folder)) == before
    opened.clear()
    assert digest_of(str(folder)) == before and opened == [folder / "a.txt"]


def test_a_cache_that_is_damaged_or_cannot_be_written_costs_time_alone(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    before = digest_of(str(folder))
    (kept,) = cache.rglob("*.json")
    for content in (b"", b"[]", b'{"a.txt": 3}', b"\xff"):
        kept.write_bytes(content)
        assert digest_of(str(folder)) == before
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(write(tmp_path / "file", b"")))
    assert digest_of(str(folder)) == before
    write(folder / os.fsdecode(b"\xff.txt"), b"")
    assert digest_of(str(folder)) != before


def test_a_file_that_cannot_be_read_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path, *words: str, **more: str) -> object:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(DataError, match=r"--data .*a.txt: cannot be read: Permission denied"):
        digest_of(str(folder))

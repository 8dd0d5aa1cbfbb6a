import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from result_rows import create_store, small_row
from test_schema import rows

from bench.core.errors import DataError, IncompatibleError, MeasurementError
from bench.results.schema import NAMES, Row
from bench.results.store import Store, sidecar_path


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with create_store(tmp_path) as opened:
        yield opened


def test_a_new_run_is_a_file_of_its_own_and_a_sidecar(store: Store, tmp_path: Path) -> None:
    assert store.path.name == "20300131T120000Z_01234567_r1.csv"
    assert store.path.read_text() == ",".join(NAMES) + "\n"
    sidecar = json.loads(sidecar_path(store.path).read_text())
    assert sidecar["environment"] == {"cpu": {"model": "made up"}}
    assert sidecar["request"] == {"size": "tiny"}
    with Store.open(store.path) as again:
        assert again.sidecar.request == {"size": "tiny"}
    with pytest.raises(DataError, match="exists already"):
        create_store(tmp_path)
    (tmp_path / "results").write_text("a file")
    with pytest.raises(DataError, match=r"results: .*choose another folder"):
        create_store(tmp_path / "results")


@settings(max_examples=60)
@given(sessions=st.lists(st.lists(rows, max_size=3), max_size=3), torn=st.binary(max_size=30))
def test_what_is_appended_over_several_sessions_is_what_is_read(
    tmp_path_factory: pytest.TempPathFactory, sessions: list[list[Row]], torn: bytes
) -> None:
    directory = tmp_path_factory.mktemp("store")
    path = create_store(directory).path
    torn = torn.replace(b"\n", b"").replace(b'"', b"")
    for appended in sessions:
        with Store.open(path, note=lambda _: None) as store:
            for row in appended:
                store.append(row)
        with path.open("ab") as file:
            file.write(torn)
    with Store.open(path, note=lambda _: None) as store:
        read = store.rows()
    # Equal in type and value, negative zero included.
    assert repr(read) == repr([row for appended in sessions for row in appended])


def test_a_row_cut_short_by_a_crash_is_removed_and_noted(store: Store) -> None:
    for trial, torn in enumerate((b"1.0,r1,3", b'1.0,r1,"a text\nover two lines\n', b"\xff\x00")):
        store.append(small_row(trial=trial, params_json='{"batch":2}'))
        whole = store.path.read_bytes()
        store.path.write_bytes(whole + torn)
        notes: list[str] = []
        with Store.open(store.path, note=notes.append):
            pass
        assert store.path.read_bytes() == whole
        assert len(notes) == 1 and "cut short" in notes[0]
    store.append(small_row(trial=3))
    assert [row["trial"] for row in store.rows()] == [0, 1, 2, 3]
    # Behind a stray quote nothing is removed.
    damaged = store.path.read_bytes().replace(b",imaging", b',"imaging', 1)
    store.path.write_bytes(damaged)
    with pytest.raises(DataError, match="quote"):
        Store.open(store.path)
    assert store.path.read_bytes() == damaged


OUTSIDE: list[tuple[dict[str, object], str]] = [
    ({"speed": 1.0}, "columns not in the schema: speed"),
    ({"status": "GOOD"}, "status 'GOOD'"),
    ({"reasons": "drift;haunted"}, "reasons not in the schema: haunted"),
    ({"device": None}, "row without device"),
    ({"run_id": "other"}, "run other"),
    ({"schema_version": "0.9"}, "schema 0.9"),
    ({"window_s": float("nan")}, "window_s"),
]


def _fail_from(monkeypatch: pytest.MonkeyPatch, *, taken_bytes: int, code: int) -> None:
    """A disk with room for a part: it takes that part, and fails the next write."""
    write, calls = os.write, []

    def short_write(descriptor: int, data: bytes) -> int:
        calls.append(len(data))
        if len(calls) == 1 and taken_bytes:
            return write(descriptor, data[:taken_bytes])
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "write", short_write)


def test_a_row_outside_the_schema_or_for_a_full_disk_leaves_the_whole_rows(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.append(small_row())
    whole = store.path.read_bytes()
    for cells, message in OUTSIDE:
        with pytest.raises(ValueError, match=message):
            store.append(small_row(**cells))
        assert store.path.read_bytes() == whole
    for taken_bytes, code in [(0, errno.ENOSPC), (1, errno.EDQUOT), (40, errno.EIO)]:
        with monkeypatch.context() as patch:
            _fail_from(patch, taken_bytes=taken_bytes, code=code)
            with pytest.raises(MeasurementError) as caught:
                store.append(small_row(trial=1))
        assert os.strerror(code) in str(caught.value) and "\n" not in str(caught.value)
        assert "earlier rows are safe" in str(caught.value)
        assert store.path.read_bytes() == whole
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: os.open("/no/such/disk", os.O_RDONLY))
        with pytest.raises(MeasurementError):
            store.append(small_row(trial=1))
    assert store.path.read_bytes() == whole
    store.append(small_row(trial=1))
    assert len(store.rows()) == 2


def test_a_damaged_sidecar_is_one_line_and_no_other_run_or_schema_is_continued(
    store: Store,
) -> None:
    sidecar, whole = sidecar_path(store.path), sidecar_path(store.path).read_text()
    for content in ("", "{", "[]", '{"run_id": "r1"}', "[" * 100_000, "\udcff"):
        sidecar.write_text(content, errors="surrogateescape")
        with pytest.raises(DataError, match=r"\.env\.json: is damaged") as caught:
            Store.open(store.path)
        assert "\n" not in str(caught.value), content
    sidecar.write_text(whole)
    header = store.path.read_text()
    store.path.write_text(header.replace("detail,", "detail,a_newer_column,"))
    with pytest.raises(IncompatibleError, match="start a new run"):
        Store.open(store.path)
    store.path.write_text(header)
    store.append(small_row())
    text = store.path.read_text()
    store.path.write_text(text.replace(",r1,", ",r2,"))
    with pytest.raises(DataError, match="holds run r2"):
        Store.open(store.path)
    sidecar.unlink()
    store.path.write_text(text)
    with pytest.raises(DataError, match="--resume needs it"):
        Store.open(store.path)

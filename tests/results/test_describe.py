from pathlib import Path
from typing import get_args

import pytest

from bench.core.nouns import Status
from bench.results import describe
from bench.results.describe import KINDS, STATUSES, results_readme
from bench.results.schema import BY_NAME, COLUMNS, REASONS, REQUIRED, Kind

README = Path(__file__).parent.parent.parent / "results" / "README.md"


def test_the_committed_page_is_the_schemas() -> None:
    assert README.read_text() == results_readme(), (
        "run python -m bench.results.describe --write and commit results/README.md"
    )


def test_every_column_reason_status_and_kind_has_a_line() -> None:
    lines = results_readme().splitlines()
    for name in [*BY_NAME, *REASONS, *STATUSES, *KINDS]:
        assert sum(line.startswith(f"| `{name}` | ") for line in lines) == 1, name
    assert set(STATUSES) == set(get_args(Status))
    assert set(KINDS) == set(get_args(Kind))


def test_every_table_has_as_many_cells_in_each_line() -> None:
    width = 0
    for line in results_readme().splitlines():
        bars = line.replace("\\|", "").count("|")
        assert not line.startswith("|") or width in (0, bars), line
        width = bars if line.startswith("|") else 0


def test_column_names_are_unique_and_the_version_comes_first() -> None:
    assert len(BY_NAME) == len(COLUMNS)
    assert COLUMNS[0].name == "schema_version"
    assert set(REQUIRED) <= set(BY_NAME)


def test_the_page_is_printed_or_written(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert describe.main([]) == 0
    assert capsys.readouterr().out == results_readme()
    (tmp_path / "results").mkdir()
    monkeypatch.setattr(describe, "source_root", lambda: tmp_path)
    assert describe.main(["--write"]) == 0
    assert (tmp_path / "results" / "README.md").read_text() == results_readme()
    assert describe.main(["--wrong"]) == 2

from typing import get_args

from bench.core.nouns import Status
from bench.results.schema import BY_NAME, COLUMNS, REASONS, REQUIRED, STATUSES, Kind
from scripts.results_readme import KINDS, README, results_readme


def test_the_committed_page_is_the_schemas() -> None:
    assert README.read_text() == results_readme(), (
        "run python -m scripts.results_readme and commit results/README.md"
    )


def test_every_column_reason_status_and_kind_has_a_line() -> None:
    lines = results_readme().partition("## Files")[2].splitlines()
    for name in [*BY_NAME, *REASONS, *STATUSES, *KINDS]:
        assert sum(line.startswith(f"| `{name}` | ") for line in lines) == 1, name
    assert set(STATUSES) == set(get_args(Status))
    assert set(KINDS) == set(get_args(Kind))
    assert len(BY_NAME) == len(COLUMNS)
    assert COLUMNS[0].name == "schema_version"
    assert set(REQUIRED) <= set(BY_NAME)

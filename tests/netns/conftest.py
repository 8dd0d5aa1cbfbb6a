"""The option that keeps what the experiment found."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--write-document", action="store_true", help="keep the tables in results/validation"
    )

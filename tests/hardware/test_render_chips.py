"""What `bench list chips` prints."""

import json
from typing import Any

import pytest

from bench.cli import main

Captured = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("words", "on_stdout", "on_stderr"),
    [
        ("", ["cpu-2s-xeon-8480 ", "h20-96g "], ["atlas-900-2019"]),
        ("--where tdp_w<=60 --sort id", ["a2 "], ["left out: tdp_w unknown"]),
        ("h20", ["148 TFLOP/s", "296 TOP/s", "4.00 TB/s", "October 2023, 3A090.a",
                 "not restricted", "https://www.smbom.com/news/13059"], []),
        ("atlas-900-2019", ["ascend-910", "1024", "262 PFLOP/s"], []),
    ],
)  # fmt: skip
def test_tables_and_cards_show_all_of_it(
    words: str, on_stdout: list[str], on_stderr: list[str], capsys: Captured
) -> None:
    assert main(["list", "chips", *words.split()]) == 0
    printed = capsys.readouterr()
    assert all(word in printed.out for word in on_stdout)
    assert all(word in printed.err for word in on_stderr)
    assert "…" not in printed.out and "left out" not in printed.out


def test_unknown_is_blank(capsys: Captured) -> None:
    main(["list", "chips", "--where", "id=xuantie-910"])
    line = next(x for x in capsys.readouterr().out.splitlines() if "xuantie" in x)
    assert line.split() == ["xuantie-910", "2019", "medium"]


def test_json_is_one_document_and_unknown_null_or_absent(capsys: Captured) -> None:
    def document(*words: str) -> Any:
        assert main(["list", "chips", *words, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    assert len(document()["chips"]) == 51
    assert document("dgx-a100")["id"] == "dgx-a100"
    l2 = document("l2")
    assert l2["sources"] and l2["tdp_w"] is None and "clock_hz" not in l2


def test_nothing_matched_ends_with_five(capsys: Captured) -> None:
    assert main(["list", "chips", "--where", "tdp_w<0"]) == 5
    assert "tdp_w<0" in capsys.readouterr().err

"""What `bench list chips` prints."""

import json

import pytest

from bench.cli.chips import render_chips
from bench.core.errors import NothingMatchedError, UsageError


def render(
    *,
    where: str | None = None,
    sort: str | None = None,
    name: str | None = None,
    json: bool = False,
) -> None:
    render_chips(where=where, sort=sort, name=name, as_json=json)


def test_the_table_has_a_line_per_chip_and_nothing_is_cut(
    capsys: pytest.CaptureFixture[str],
) -> None:
    render()
    printed = capsys.readouterr()
    assert "cpu-2s-xeon-8480 " in printed.out and "h20-96g " in printed.out
    assert "…" not in printed.out
    assert "atlas-900-2019" in printed.err


def test_unknown_is_blank(capsys: pytest.CaptureFixture[str]) -> None:
    render(where="id=xuantie-910")
    line = next(x for x in capsys.readouterr().out.splitlines() if "xuantie" in x)
    assert line.split() == ["xuantie-910", "2019", "medium"]


def test_what_is_left_out_is_said_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    render(where="tdp_w<=60", sort="id")
    printed = capsys.readouterr()
    assert "left out: tdp_w unknown" in printed.err
    assert "left out" not in printed.out


def test_a_card_has_figures_verdicts_and_sources(capsys: pytest.CaptureFixture[str]) -> None:
    render(name="h20")
    out = capsys.readouterr().out
    assert "148 TFLOP/s" in out and "296 TOP/s" in out and "4.00 TB/s" in out
    assert "October 2023, 3A090.a" in out and "not restricted" in out
    assert "https://www.smbom.com/news/13059" in out


def test_a_system_has_a_card(capsys: pytest.CaptureFixture[str]) -> None:
    render(name="atlas-900-2019")
    out = capsys.readouterr().out
    assert "ascend-910" in out and "1024" in out and "262 PFLOP/s" in out


@pytest.mark.parametrize("name", [None, "l2", "dgx-a100"])
def test_json_is_one_document(name: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    render(name=name, json=True)
    document = json.loads(capsys.readouterr().out)
    if name is None:
        assert len(document["chips"]) == 51
    else:
        assert document["id"] == name and document["sources"]


def test_unknown_is_null_or_absent_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    render(name="l2", json=True)
    document = json.loads(capsys.readouterr().out)
    assert document["tdp_w"] is None and "clock_hz" not in document


def test_nothing_matched_says_so() -> None:
    with pytest.raises(NothingMatchedError, match="tdp_w<0"):
        render(where="tdp_w<0")


def test_a_name_and_a_filter_together_are_refused() -> None:
    with pytest.raises(UsageError, match="NAME"):
        render(name="l2", where="tdp_w<5")

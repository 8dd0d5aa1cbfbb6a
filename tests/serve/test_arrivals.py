"""When requests come: laws, a day, a trace; what cannot be meant; which sample each one takes."""

import json
from itertools import pairwise
from pathlib import Path
from statistics import fmean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.core.errors import BenchError, DataError
from bench.serve.arrivals import MOST_ARRIVALS, equal_issue, parse_arrivals


def times(text: str, *, seconds: float, seed: int = 1) -> list[float]:
    return [one.at_s for one in parse_arrivals(text).draw(seconds=seconds, seed=seed)]


@pytest.mark.parametrize(
    ("text", "cv"),
    [("poisson:40/s", 1), ("gamma:2400/min:0.25", 2), ("gamma:40/s:4", 0.5), ("uniform:40/s", 0)],
)
def test_gaps_have_the_mean_and_the_spread_of_their_law(text: str, cv: float) -> None:
    found = times(text, seconds=1000.0)
    gaps = [after - before for before, after in pairwise(found)]
    assert fmean(gaps) == pytest.approx(1.0 / 40.0, rel=0.03)
    assert stdev(gaps) / fmean(gaps) == pytest.approx(cv, rel=0.03, abs=1e-9)
    assert parse_arrivals(text).rate_per_s == pytest.approx(40.0)


@pytest.mark.parametrize("text", ["poisson:40/s", "gamma:40/s:0.25", "uniform:40/s"])
def test_a_longer_run_begins_with_a_shorter_one_and_nothing_is_stretched(text: str) -> None:
    short, long = times(text, seconds=10.0), times(text, seconds=25.0)
    assert long[: len(short)] == short and 10.0 <= long[len(short)] < long[-1] < 25.0
    assert times(text, seconds=10.0) == short
    assert text.startswith("uniform") or times(text, seconds=10.0, seed=2) != short


def test_a_day_is_as_long_as_the_run_and_comes_by_its_hours(tmp_path: Path) -> None:
    file = tmp_path / "ward.txt"
    file.write_bytes(
        "\ufeff# Monday to Friday".encode()[:3] + b"0\r\n" * 12 + b"1, 2; 3\t2" + b" 0" * 8
    )
    day = parse_arrivals(f"day:{file}")
    assert day.rate_per_s is None and day.label.startswith("day:ward.txt#")
    assert day.busiest == pytest.approx(3 * 24 / 8)
    found = [one.at_s for one in day.scaled_to(20.0).draw(seconds=240.0, seed=3)]
    in_hour = [sum(hour <= at_s / 10.0 < hour + 1 for at_s in found) for hour in range(24)]
    assert len(found) == sum(in_hour[12:16]) == pytest.approx(20 * 240, rel=0.05)
    assert in_hour[14] == pytest.approx(3 / 8 * len(found), rel=0.1)
    stated = parse_arrivals(f"day:800/day:{file}")
    assert stated.rate_per_s == pytest.approx(800 / 86_400)
    assert stated.label.startswith("day:800/day:ward.txt#")


def trace(folder: Path, *lines: object) -> str:
    file = folder / "trace.jsonl"
    file.write_text("\n".join(one if isinstance(one, str) else json.dumps(one) for one in lines))
    return f"trace:{file}"


def test_a_trace_starts_at_0_and_keeps_its_lengths_and_its_gaps(tmp_path: Path) -> None:
    text = trace(
        tmp_path,
        {"timestamp": 1_700_000_000_500, "input_length": 6755, "output_length": 500, "hash": 0},
        {"timestamp": 1_700_000_000_500, "input_length": 1},
        "",
        {"timestamp": 1_700_000_003_500.5},
    )  # fmt: skip
    found = parse_arrivals(text)
    assert [(one.at_s, one.prompt_tokens, one.output_tokens) for one in found.recorded] == [
        (0.0, 6755, 500),
        (0.0, 1, None),
        (3.0005, None, None),
    ]
    assert found.rate_per_s == pytest.approx(2 / 3.0005)
    assert found.lasts_s(60.0) == pytest.approx(3 / found.rate_per_s) and found.lasts_s(3.0) == 3.0
    assert len(found.draw(seconds=3.0, seed=0)) == 2, "nothing is drawn, and nothing comes again"
    faster = found.scaled_to(4.0 / 3.0005)
    assert faster.recorded[-1].at_s == pytest.approx(3.0005 / 2)
    assert faster.label.startswith("trace:1.33311/s:")
    assert parse_arrivals(text.replace("trace:", "trace:2/s:")).lasts_s(60) == pytest.approx(1.5)


def test_auto_has_no_rate_until_one_is_found() -> None:
    auto = parse_arrivals(" AUTO ")
    assert (auto.label, auto.rate_per_s, auto.busiest, auto.lasts_s(9.0)) == (
        "auto",
        None,
        1.0,
        9.0,
    )
    assert auto.scaled_to(12.5).label == "poisson:12.5/s"
    assert parse_arrivals("gamma:3/s:0.50").scaled_to(0.5).label == "gamma:0.5/s:0.5"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "poisson:40",
            "'poisson:40' is not a rate, a number over 0 per s, min, h, day, d, such as 40/s",
        ),
        ("day:day.txt:800/day", "a rate goes before the file: day:800/day:FILE"),
        ("poisson", "is not a rate, a number over 0 per"),
        ("uniform:0/s", "is not a rate, a number over 0 per"),
        ("poisson:-1/s", "is not a rate, a number over 0 per"),
        ("poisson:40/s:2", "is not a rate, a number over 0 per"),
        ("poison:40/s", "did you mean 'poisson'?"),
        ("40/s", "'40/s' is not one of poisson, uniform, gamma, day, trace, auto"),
        ("gamma:40/s", "needs a shape from 0.01 to 1000 after the rate, such as gamma:40/s:0.5"),
        ("gamma:40/s:nan", "needs a shape"),
        ("auto:40/s", "give auto alone"),
        ("trace:", "needs a file, such as trace:FILE"),
        ("day:40/s:", "needs a file"),
        ("day:not/there.txt", "'not/there.txt': there is no such file"),
        ("day:40/s:.", "there is no such file"),
    ],
)
def test_what_cannot_be_meant_is_said_in_one_line(text: str, says: str) -> None:
    with pytest.raises(BenchError) as refused:
        parse_arrivals(text)
    assert says in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("1 " * 23, "has 23 numbers; a day is 24 numbers, one for each hour from midnight on"),
        ("0,5\n" * 24, "has 48 numbers"),
        ("hour\n" + "1\n" * 24, "has 'hour'"),
        ("", "has 0 numbers"),
        ("0 " * 24, "one of them more than 0"),
        ("1 " * 23 + "-1", "weighs 0 or more"),
        ("1 " * 23 + "1e999", "weighs 0 or more"),
    ],
)
def test_a_day_has_24_weights(tmp_path: Path, content: str, says: str) -> None:
    file = tmp_path / "day.txt"
    file.write_text(content)
    with pytest.raises(DataError, match=says):
        parse_arrivals(f"day:{file}")


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (['{"timestamp": 900}', '{"timestamp": 250}'],
         "line 2: time goes back, from 900 to 250 ms; sort the lines by timestamp"),
        (['{"timestamp": 900}', "<html>"], "line 2 is not a request, such as"),
        (['{"time": 900}'], "line 1 .*`timestamp`"),
        (['{"timestamp": "900"}'], "line 1 .*Expected `float`, got `str`"),
        (['{"timestamp": -1}'], "line 1 .*>= 0"),
        (['{"timestamp": 1, "input_length": 0}'], "line 1 .*>= 1"),
        (["[" * 100_000], "line 1 is not a request"),
        ([""], "needs requests at two times or more"),
        (['{"timestamp": 5}', '{"timestamp": 5}'], "needs requests at two times or more"),
    ],
)  # fmt: skip
def test_a_trace_is_refused_with_its_line(tmp_path: Path, lines: list[str], says: str) -> None:
    with pytest.raises(DataError, match=says) as refused:
        parse_arrivals(trace(tmp_path, *lines))
    assert "\n" not in str(refused.value)


def test_more_requests_than_memory_holds_are_refused() -> None:
    with pytest.raises(BenchError, match=f"6e.18 requests in 60 s are over {MOST_ARRIVALS:,}"):
        times("poisson:1e17/s", seconds=60.0)


@given(st.text() | st.from_regex(r"(poisson|uniform|gamma|auto|day|trace):?[0-9e./:shd ]*"))
def test_any_text_is_arrivals_or_one_line(text: str) -> None:
    try:
        found = parse_arrivals(text)
    except BenchError as error:
        assert "\n" not in str(error)
    else:
        scaled = found.scaled_to(50.0)
        drawn = [one.at_s for one in scaled.draw(seconds=1.0, seed=0)]
        assert drawn == sorted(drawn) and all(0.0 <= at_s < 1.0 for at_s in drawn)
        assert parse_arrivals(scaled.label).rate_per_s == 50.0


@given(st.binary(), st.sampled_from(["day", "trace"]))
def test_any_file_is_arrivals_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, law: str
) -> None:
    file = tmp_path_factory.getbasetemp() / "any_file"
    file.write_bytes(content)
    try:
        parse_arrivals(f"{law}:{file}")
    except BenchError as error:
        assert "\n" not in str(error)


@given(st.integers(1, 12), st.integers(0, 60), st.integers())
def test_every_sample_comes_once_before_any_comes_again(
    num_samples: int, num: int, seed: int
) -> None:
    found = equal_issue(num_samples, num=num, seed=seed)
    assert len(found) == num and found == equal_issue(num_samples, num=num, seed=seed)
    for start in range(0, num, num_samples):
        issue = found[start : start + num_samples]
        assert len(set(issue)) == len(issue) and set(issue) <= set(range(num_samples))


def test_each_round_has_an_order_of_its_own() -> None:
    found = equal_issue(100, num=200, seed=1)
    assert found[:100] != found[100:] != sorted(found[100:])
    assert found[:100] != equal_issue(100, num=100, seed=2)

"""What a load needs, as typed and read: waiting, urgent items, shared devices, what is unknown."""

from pathlib import Path

import numpy as np
import pytest

from bench.results.beside_rows import KEYS, append_samples
from bench.results.schema import Row, Value
from bench.results.store import samples_path
from tests.analysis.synthetic_rows import trials
from tests.analysis.test_gap import INFER
from tests.analysis.test_projection_rows import ROOFS
from tests.cli.conftest import Ask, Write

OWN_TIME = "service times measured in a closed loop; a server adds its own time"
DECODE: dict[str, Value] = {
    "workload": "llm-decode",
    "config_hash": "dec0de",
    "items_unit": "token",
    "items": 800,
}


def with_steps(path: str, rows: list[Row], *, num: int = 300, spread: float = 0.1) -> str:
    """Write samples beside rows, of the mean that these have."""
    for place, row in enumerate(rows):
        steps = np.random.default_rng(place).gamma(1.0 / spread**2, spread**2, num)
        step_s = (float(str(row["step_median_ms"])) * 1e-3 * steps).tolist()
        record = {**{key: row[key] for key in KEYS}, "step_s": step_s}
        append_samples(samples_path(Path(path)), record)
    return path


@pytest.fixture
def measured(write: Write) -> str:
    """Studies of 100 ms and steps of 20 ms for 8 tokens, with every step; and a training."""
    infer = trials(seed=1, noise_frac=0.01, **INFER, device_memory_bytes=10**10)
    decode = trials(seed=2, noise_frac=0.01, step_ms=20.0, **DECODE)
    rows = [*trials(), *infer, *decode]
    return with_steps(*write(run=rows), rows)


def test_the_answer_says_what_it_rests_on_and_how_many_devices_would_hold(
    measured: str, ask: Ask
) -> None:
    words = ("gap", measured, "-w", "imaging", "--load", "200000/day", "--latency", "1s")
    said = ask(*words, "--busy-hour", "12%", "--urgent", "5%:500ms").out
    assert "from 1,500 " + OWN_TIME in said
    assert "With waiting: imaging-infer tiny fp32, 200000/day, 12% of a day in the busiest" in said
    assert "time at p95 1s" in said and "state --busy-hour" not in said
    document = ask(*words, "--json").document
    (served,) = document["served"]
    (gap,) = document["gaps"]
    ratio = gap["time_at_limit_ratio"]["value"] / gap["time_ratio"]["value"]
    assert ratio == pytest.approx(served["usable_frac"], rel=0.02)
    assert 0.8 < served["usable_frac"] < 0.9 and served["no_interval"] is None
    carries = served["carries_per_s"]
    assert carries["low"] < carries["value"] < carries["high"] < 1.1 * carries["low"]
    assert served["share"]["value"] == pytest.approx(200000 / 86400 / carries["value"])
    assert "evenly over the day; state --busy-hour" in ask(*words).out
    over = ("gap", measured, "-w", "imaging", "--load", "31/s", "--latency", "1s")
    said = ask(*over).out
    assert " devices' work comes for 1 device: the queue grows without end; 4 devices" in said
    assert "no end" in said
    said = ask(*over[:-2], "--latency", "50ms").out
    assert "one that never waits takes too long at p95: no number of devices holds 50ms" in said
    said = ask(*over[:-3], "9.5/s", "--latency", "300ms").out
    assert "1 device cannot hold the limit at this load; 2 devices would hold" in said


def test_few_or_no_services_are_said(write: Write, ask: Ask) -> None:
    rows = trials(num=2, **INFER)
    load = ("--load", "5/s", "--latency", "1s")
    (bare,) = write(bare=rows)
    said = ask("gap", bare, *load).out
    assert (
        "measured in a closed loop, their spread assumed: 0.3; a server adds its own time" in said
    )
    (path,) = write(few=rows)
    said = ask("gap", with_steps(path, rows, num=40), *load).out
    assert "from 80 " + OWN_TIME in said
    assert "no interval: 80 service times, worth" in said
    # Samples do not name their run: beside rows of two runs they are nobody's.
    (path,) = write(two=[*rows, *({**row, "run_id": "run2"} for row in rows)])
    assert "spread assumed" in ask("gap", with_steps(path, rows), *load).out
    rows = trials(num=2, **INFER, mode="simulated", link="pcie4")
    (path,) = write(modelled=rows)
    said = ask("gap", with_steps(path, rows), *load).out
    assert "from a mean service time simulated in a closed loop, their spread" in said
    assert "[simulated pcie4]" in said.partition("With waiting")[2]
    samples_path(Path(path)).write_bytes(b"no gzip")
    assert "is not gzip, or is damaged" in ask("gap", path, *load, code=2).one_line
    assert "With waiting" not in ask("gap", path, code=5).out, "and are not looked at without"


def test_several_loads_share_one_device_that_holds_them_all(
    measured: str, write: Write, ask: Ask
) -> None:
    loads = ("--load", "imaging-infer:4/s", "--load", "llm:decode:80/s", "--latency", "1s")
    study, tokens = ask("gap", measured, *loads, "--json").document["served"]
    assert study["used_frac"] == tokens["used_frac"] == pytest.approx(0.6, rel=0.05)
    assert study["share"] == tokens["share"]
    assert tokens["carries_per_s"]["value"] == pytest.approx(20 * study["carries_per_s"]["value"])
    assert tokens["done_s"]["half"] < study["done_s"]["half"]
    typed = ask("gap", measured, "--load", "imaging-infr:4/s", code=2)
    assert "did you mean 'imaging-infer'?" in typed.one_line
    said = ask("gap", measured, *loads).out
    assert "llm-decode: a request is a step of 8 tokens, as measured, and waited for whole" in said
    other = trials(seed=3, **{**INFER, "config_hash": "0ther", "params_json": '{"batch": 9}'})
    (path,) = write(several=[*trials(seed=1, **INFER), *other, *trials(**DECODE)])
    said = ask("gap", path, *loads, code=5).out
    assert "--load imaging-infer: several settings on Test CPU; a device is shared by one" in said
    large: dict[str, Value] = {"mem_alloc_peak_bytes": 6 * 2**30, "device_memory_bytes": 2**33}
    (path,) = write(large=[*trials(**INFER, **large), *trials(**DECODE, **large)])
    said = ask("gap", path, *loads, code=5).out
    assert "6.00 GiB and 6.00 GiB do not fit into 8.00 GiB together" in said


def test_chips_for_a_load_that_waits(write: Write, ask: Ask) -> None:
    rows = trials(num=3, **{**ROOFS, **INFER})  # type: ignore[arg-type]
    path = with_steps(*write(run=rows), rows)
    words = ("project", path, "--to", "h20,l4", "--size-for")
    target = "imaging-infer {} volumes/s < {} at p99"
    found = ask(*words, target.format(10, "1s"), "--json").document
    assert "900 service times" in found["waiting_basis"] and found["kind"] == "projected"
    assert found["target"]["limit_s"] == 1.0 and found["target"]["at_frac"] == 0.99
    alone = ask(*words, "imaging-infer 10 volumes/s", "--json").document["choices"]
    for one, rate in zip(found["choices"], alone, strict=True):
        assert one["devices"] >= rate["devices"] and one["chip"] == rate["chip"]
    speed = (
        found["choices"][0]["projected_throughput_per_s"]["mid"] / found["choices"][0]["devices"]
    )
    # At 0.95 of what one does the rate alone needs one, and p99 within 3 services more.
    near = ask(*words, target.format(0.95 * speed, f"{3 / speed}s"), "--json").document["choices"]
    first = next(one for one in near if one["chip"] == found["choices"][0]["chip"])
    assert first["devices"] > 1
    said = ask(*words, target.format(10, "1s")).out
    assert "from 900 " + OWN_TIME in said
    assert "services spread as on Test CPU" in said
    said = ask(*words, target.format(10, "1us"), code=5).out
    assert "no number of them holds it in the middle" in said

import json
import os
import platform
from pathlib import Path
from typing import Any

import pytest
from result_rows import create_store, small_row

from bench.results import environment
from bench.results.environment import env_id, host_hash, row_columns

FACTS = {
    "torch": "2.13.0+cu130",
    "cuda_runtime": "13.0",
    "hip_runtime": None,
    "cudnn": "91002",
    "device_name": "A100",
    "device_uuid_hash": "0011223344556677",
    "flags": {"is_cudnn_benchmark": True},
}
MACHINE: dict[str, dict[str, object]] = {
    "cpu": {"model": "Made Up 9000"},
    "memory": {"total_bytes": 2**40},
    "system": {"name": "Made Up Linux 1", "kernel": "Linux 6"},
    "now": {"load_1min": 0.5},
}


def fingerprint(
    *, torch_facts: dict[str, Any], environ: dict[str, str] | None = None
) -> dict[str, Any]:
    return environment.fingerprint(
        torch_facts=torch_facts, machine=MACHINE, environ=os.environ if environ is None else environ
    )


@pytest.fixture
def record() -> dict[str, object]:
    return fingerprint(torch_facts=FACTS, environ={})


def test_the_record_holds_what_the_method_asks_for(record: dict[str, object]) -> None:
    assert record["torch"] == FACTS
    assert set(record) == {
        *("host_hash", "cpu", "memory", "system", "python", "bench", "torch"),
        *("variables", "now"),
    }
    json.dumps(record, allow_nan=False)


def test_the_identity_is_the_same_later_on_a_machine_alike_and_at_another_commit(
    record: dict[str, object],
) -> None:
    changing = {"device_temperature_c": 80, "memory_free_bytes": 1, "uptime_s": 5}
    second = fingerprint(torch_facts={**FACTS, "device_uuid_hash": "other", **changing}, environ={})
    second |= {
        "host_hash": "other",
        "bench": {"version": "9", "git_commit": "other"},
        "now": {"utc": "2031-01-01T00:00:00Z", "load_1min": 99.0},
    }
    assert env_id(second) == env_id(record)
    assert len(env_id(record)) == 64


@pytest.mark.parametrize(
    "change",
    [
        {"torch": {**FACTS, "torch": "2.14.0"}},
        {"torch": {**FACTS, "flags": {"is_cudnn_benchmark": False}}},
        {"variables": {"OMP_NUM_THREADS": "3"}},
        {"cpu": {"model": "another"}},
        {"python": {"version": "3.99"}},
    ],
)
def test_what_changes_speed_changes_the_identity(
    record: dict[str, object], change: dict[str, object]
) -> None:
    assert env_id(record | change) != env_id(record)


def test_only_listed_variables_are_recorded() -> None:
    record = fingerprint(
        torch_facts={}, environ={"OMP_NUM_THREADS": "4", "API_TOKEN": "secret", "USER": "joan"}
    )
    assert record["variables"] == {"OMP_NUM_THREADS": "4"}
    assert "secret" not in json.dumps(record)


def test_nobody_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "node", lambda: "joans-laptop")
    monkeypatch.setenv("HOME", "/data/people/joan")
    uuid = "GPU-01234567-89ab-cdef-0123-456789abcdef"
    record = fingerprint(
        torch_facts={"path": "/data/people/joan/torch", "all": [{"deep": "/home/joan/x"}]},
        environ={
            "CUDA_VISIBLE_DEVICES": uuid,
            "LD_PRELOAD": "/opt/joan/libjemalloc.so:/x/libomp.so",
            "MALLOC_CONF": r"C:\Users\joan\conf",
        },
    )
    text = json.dumps(record)
    assert "joan" not in text and uuid not in text
    assert record["torch"] == {"path": "~/torch", "all": [{"deep": "~/x"}]}
    assert record["variables"]["LD_PRELOAD"] == "libjemalloc.so libomp.so"  # type: ignore[index]
    assert record["variables"]["CUDA_VISIBLE_DEVICES"].startswith("GPU-")  # type: ignore[index]


def test_host_hashes_tell_machines_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    here = host_hash()
    monkeypatch.setattr(platform, "node", lambda: "elsewhere")
    assert len(here) == 16 and host_hash() != here


def test_columns_fit_the_store_and_what_torch_does_not_tell_is_blank(
    tmp_path: Path, record: dict[str, object]
) -> None:
    columns = row_columns(record)
    reported = ("torch_version", "runtime_version", "dnn_version", "python_version")
    with create_store(tmp_path) as store:
        row = store.append(small_row(**columns))
    assert row["env_id"] == columns["env_id"]
    assert [row[name] for name in reported] == [
        *("2.13.0+cu130", "13.0", "91002", platform.python_version())
    ]
    blank = row_columns(fingerprint(torch_facts={}, environ={}))
    assert [blank[name] for name in (*reported[:3], "driver_version")] == [None] * 4


def test_the_driver_is_that_of_the_runtime() -> None:
    record: dict[str, object] = {"system": {"drivers": {"nvidia": "580.1", "amdgpu": "6.12"}}}
    for facts, driver in [
        ({"cuda_runtime": "13.0"}, "580.1"),
        ({"hip_runtime": "7.1"}, "6.12"),
        ({}, None),
        ({"driver_version": "from the device", "cuda_runtime": "13.0"}, "from the device"),
    ]:
        assert row_columns({**record, "torch": facts})["driver_version"] == driver

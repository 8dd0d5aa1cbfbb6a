import copy
import getpass
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from result_rows import create_store, small_row

from bench.results import environment
from bench.results.environment import env_id, host_hash, row_columns
from bench.results.schema import BY_NAME

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
ROOT = Path(__file__).parent.parent.parent


def fingerprint(
    *, torch_facts: dict[str, Any], environ: dict[str, str] | None = None
) -> dict[str, Any]:
    return environment.fingerprint(
        torch_facts=torch_facts, machine=MACHINE, environ=os.environ if environ is None else environ
    )


def test_the_record_holds_what_the_method_asks_for() -> None:
    record = fingerprint(torch_facts=FACTS, environ={})
    assert record["torch"] == FACTS
    assert set(record) == {
        *("host_hash", "cpu", "memory", "system", "python", "bench", "torch"),
        *("variables", "now"),
    }
    json.dumps(record, allow_nan=False)


def test_the_identity_is_the_same_a_minute_later() -> None:
    first = fingerprint(torch_facts=FACTS, environ={})
    second = copy.deepcopy(first)
    second["now"] = {"utc": "2031-01-01T00:00:00Z", "load_1min": 99.0}
    second["torch"] |= {  # type: ignore[operator]
        "device_temperature_c": 80,
        "memory_free_bytes": 1,
        "uptime_s": 5,
    }
    assert env_id(second) == env_id(first)
    assert len(env_id(first)) == 64


def test_the_identity_is_the_same_on_a_machine_alike_and_at_another_commit() -> None:
    first = fingerprint(torch_facts=FACTS, environ={})
    second = fingerprint(torch_facts={**FACTS, "device_uuid_hash": "other"}, environ={})
    second |= {"host_hash": "other", "bench": {"version": "9", "git_commit": "other"}}
    assert env_id(second) == env_id(first)


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
def test_what_changes_speed_changes_the_identity(change: dict[str, object]) -> None:
    record = fingerprint(torch_facts=FACTS, environ={})
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


def test_this_machines_record_names_nobody() -> None:
    text = json.dumps(fingerprint(torch_facts={}))
    assert str(Path.home()) + "/" not in text
    assert len(platform.node()) < 4 or platform.node() not in text
    assert f"/{getpass.getuser()}/" not in text


def test_host_hashes_tell_machines_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    here = host_hash()
    assert len(here) == 16
    monkeypatch.setattr(platform, "node", lambda: "elsewhere")
    assert host_hash() != here


def test_columns_fit_the_schema_and_the_store(tmp_path: Path) -> None:
    columns = row_columns(fingerprint(torch_facts=FACTS, environ={}))
    assert set(columns) <= set(BY_NAME)
    assert columns["torch_version"] == "2.13.0+cu130"
    assert columns["runtime_version"] == "13.0"
    assert columns["dnn_version"] == "91002"
    assert columns["python_version"] == platform.python_version()
    with create_store(tmp_path) as store:
        store.append(small_row(**columns))
        assert store.rows()[0]["env_id"] == columns["env_id"]


def test_what_torch_does_not_tell_stays_blank() -> None:
    columns = row_columns(fingerprint(torch_facts={}, environ={}))
    assert columns["torch_version"] is None
    assert columns["runtime_version"] is None
    assert columns["driver_version"] is None


def test_the_driver_is_that_of_the_runtime() -> None:
    record: dict[str, object] = {"system": {"drivers": {"nvidia": "580.1", "amdgpu": "6.12"}}}
    for facts, driver in [
        ({"cuda_runtime": "13.0"}, "580.1"),
        ({"hip_runtime": "7.1"}, "6.12"),
        ({}, None),
        ({"driver_version": "from the device", "cuda_runtime": "13.0"}, "from the device"),
    ]:
        assert row_columns({**record, "torch": facts})["driver_version"] == driver


def test_neither_torch_nor_pandas_is_imported_for_writing() -> None:
    code = (
        "import sys, bench.results.store, bench.results.samples, bench.results.environment,"
        "bench.results.reader;"
        "print({'torch', 'pandas', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "set()"


def test_all_listed_variables_look_like_variables() -> None:
    assert all(name.replace("_", "").isalnum() and name.isupper() for name in environment.VARIABLES)

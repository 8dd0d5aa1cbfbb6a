import json
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from result_rows import create_store, small_row

from bench.results import environment
from bench.results.environment import bench_version, env_id, git_commit, host_hash, row_columns

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


def fingerprint(*, torch_facts: dict[str, Any], **environ: str) -> dict[str, Any]:
    return environment.fingerprint(torch_facts=torch_facts, machine=MACHINE, environ=environ)


def test_the_identity_is_that_of_a_machine_alike_until_something_changes_speed() -> None:
    record = fingerprint(torch_facts=FACTS)
    assert record["torch"] == FACTS
    assert set(record) == {"host_hash", "bench", "python", "torch", "variables", *MACHINE}
    json.dumps(record, allow_nan=False)
    changing = {"device_temperature_c": 80, "memory_free_bytes": 1, "uptime_s": 5}
    later = fingerprint(torch_facts={**FACTS, "device_uuid_hash": "other", **changing})
    later |= dict.fromkeys(("host_hash", "bench", "now"), "other")
    assert env_id(later) == env_id(record)
    assert len(env_id(record)) == 64
    changes: list[dict[str, object]] = [
        {},
        {"torch": {**FACTS, "torch": "2.14.0"}},
        {"torch": {**FACTS, "flags": {"is_cudnn_benchmark": False}}},
        {"variables": {"OMP_NUM_THREADS": "3"}},
        {"cpu": {"model": "another"}},
        {"python": {"version": "3.99"}},
    ]
    assert len({env_id(record | change) for change in changes}) == 6


def test_nobody_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    here = host_hash()
    monkeypatch.setattr(platform, "node", lambda: "joans-laptop")
    assert len(here) == 16 and host_hash() != here
    monkeypatch.setenv("HOME", "/data/people/joan")
    uuid = "GPU-01234567-89ab-cdef-0123-456789abcdef"
    record = fingerprint(
        torch_facts={"path": "/data/people/joan/torch", "all": [{"deep": "/home/joan/x"}]},
        CUDA_VISIBLE_DEVICES=uuid,
        LD_PRELOAD="/opt/joan/libjemalloc.so:/x/libomp.so",
        MALLOC_CONF=r"C:\Users\joan\conf",
        OMP_PROC_BIND="\udcff",  # a byte that is no text
        API_TOKEN="secret",
    )
    text = json.dumps(record)
    assert record["variables"]["OMP_PROC_BIND"] == "?"
    assert "joan" not in text and uuid not in text and "API_TOKEN" not in text
    assert record["torch"] == {"path": "~/torch", "all": [{"deep": "~/x"}]}
    assert record["variables"]["LD_PRELOAD"] == "libjemalloc.so libomp.so"
    assert record["variables"]["CUDA_VISIBLE_DEVICES"].startswith("GPU-")


def test_columns_fit_the_store_and_what_torch_does_not_tell_is_blank(tmp_path: Path) -> None:
    columns = row_columns(fingerprint(torch_facts=FACTS))
    names = ("torch_version", "runtime_version", "dnn_version", "driver_version")
    with create_store(tmp_path) as store:
        row = store.append(small_row(**columns))
    assert row["env_id"] == columns["env_id"]
    assert row["python_version"] == platform.python_version()
    assert [row[name] for name in names] == ["2.13.0+cu130", "13.0", "91002", None]
    blank = row_columns(fingerprint(torch_facts={}))
    assert [blank[name] for name in names] == [None] * 4
    # The driver is that of the runtime.
    record: dict[str, object] = {"system": {"drivers": {"nvidia": "580.1", "amdgpu": "6.12"}}}
    for facts, driver in [
        ({"cuda_runtime": "13.0"}, "580.1"),
        ({"hip_runtime": "7.1"}, "6.12"),
        ({}, None),
        ({"driver_version": "from the device", "cuda_runtime": "13.0"}, "from the device"),
    ]:
        assert row_columns({**record, "torch": facts})["driver_version"] == driver


def test_a_checkout_knows_its_commit_and_whether_it_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*words: str) -> None:
        named = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(tmp_path), *named, *words], check=True)

    project = tmp_path / "pyproject.toml"
    project.write_text('[project]\nname = "gapbench"\nversion = "9.8.7"\n')
    git("init", "-q")
    git("add", "pyproject.toml")
    git("commit", "-q", "-m", "x")
    commit = git_commit(root=tmp_path)
    assert commit is not None and len(commit) == 40 and int(commit, 16) > 0
    assert bench_version(root=tmp_path) == "9.8.7"
    (tmp_path / "run.csv").write_text("untracked results change nothing")
    monkeypatch.setenv("GIT_DIR", "/as/in/a/hook")
    index = tmp_path / ".git" / "index"
    file_before = index.stat().st_ino
    os.utime(project, (1, 1))
    assert git_commit(root=tmp_path) == commit
    assert index.stat().st_ino == file_before, "a checkout is looked at and not written to"
    project.write_text(project.read_text() + "\n")
    assert git_commit(root=tmp_path) == f"{commit}-dirty"

    installed = tmp_path / "lib" / "site-packages"
    installed.mkdir(parents=True)
    assert git_commit(root=installed) is None
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(installed))
        assert git_commit(root=tmp_path) is None, "there is no git"
        (installed / "git").write_text("#!/bin/sh\nexec /bin/sleep 20\n")
        (installed / "git").chmod(0o755)
        patch.setattr(environment, "_GIT_LIMIT_S", 0.2)
        began_s = time.perf_counter()
        assert git_commit(root=tmp_path) is None
        assert time.perf_counter() - began_s < 5.0, "a slow git costs little time"
    project.write_text('[project]\nname = "other"\nversion = "1"\n')
    assert git_commit(root=tmp_path) is None

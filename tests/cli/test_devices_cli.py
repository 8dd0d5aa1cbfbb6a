"""`bench devices`, with this machine's CPU and with devices made up."""

import json
from typing import Any

import pytest

from bench.core.errors import MeasurementError
from bench.core.nouns import Device
from bench.devices.telemetry import nvml_links
from bench.devices.torch import backends, detect, probe
from bench.hardware import chips
from tests.cli.conftest import Ask

H800 = Device(
    type="cuda",
    index=0,
    name="NVIDIA H800",
    vendor="nvidia",
    stack="CUDA 13.0",
    memory_bytes=80 * 2**30,
    memory_free_bytes=79 * 2**30,
    uuid="GPU-secret",
    compute_units=132,
    telemetry=("power", "energy"),
)
MYSTERY = Device(
    type="novel", index=0, name="Mystery", vendor=None, stack="torch.novel", memory_bytes=None
)


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put devices, problems and dtype states in the place of this machine's."""

    def put(*found: Device, problems: tuple[str, ...] = (), **states: str) -> None:
        survey = detect.Survey(devices=found, problems=problems)
        monkeypatch.setattr(detect, "survey", lambda: survey)
        monkeypatch.setattr(probe, "probe_dtypes", lambda label: {"fp32": "ok", **states})

    return put


def test_this_machine_s_cpu_is_shown_with_what_works(ask: Ask) -> None:
    found = ask("devices", "--json").document["devices"][-1]
    assert (found["label"], found["dtypes"]["fp32"]) == ("cpu", "ok")
    assert found["memory_bytes"] > 0
    text = ask("devices", "--no-probe").out
    assert "cpu" in text and "not tried" in text and "torch 2." in text
    assert ask("devices", "--json", "--no-probe").document["devices"][-1]["dtypes"] is None


def test_a_device_is_named_with_its_row_of_the_catalogue_and_its_dtypes(
    ask: Ask, install: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(H800)
    document = ask("devices", "--json").document
    (found,) = document["devices"]
    assert len(found["chips"]) == 1
    assert "secret" not in json.dumps(document) and len(found["uuid_hash"]) == 16
    assert "not in the catalogue" not in ask("devices").out
    install(MYSTERY, bf16="wrong", fp16="raises")
    text = " ".join(ask("devices").out.split())
    assert "not in the catalogue" in text and "unknown" in text
    assert "WRONG" in text and "bf16" in text and "fp16" not in text
    assert ask("devices", "--json").document["devices"][0]["chips"] == []
    two = chips.load_chips()[:2]
    monkeypatch.setattr(chips, "match_device", lambda name, memory_bytes, **_: list(two))
    (found,) = ask("devices", "--json").document["devices"]
    assert found["chips"] == [chip.id for chip in two]
    assert "ambiguous" in ask("devices").out


def test_problems_links_and_failed_packages_are_printed(
    ask: Ask, install: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(H800, problems=("cuda:1 does not answer",))
    link = nvml_links.PhysicalLink(first="cuda:0", second="cuda:1", kind="nvlink", detail="8 links")
    monkeypatch.setattr(nvml_links, "device_links", lambda found: [link])
    failed = backends.PackageState(
        module="torch_npu", state="failed", reason="OSError: libascendcl.so"
    )
    monkeypatch.setattr(backends, "load_packages", lambda: (failed,))
    text = ask("devices").out
    assert "problem: cuda:1 does not answer" in text
    assert "link cuda:0 - cuda:1: nvlink 8 links" in text
    assert "torch_npu failed: OSError: libascendcl.so" in text
    assert ask("devices", "--json").document["links"][0]["second"] == "cuda:1"

    def refuse(label: str) -> None:
        raise MeasurementError(f"no memory is free on {label}")

    monkeypatch.setattr(probe, "probe_dtypes", refuse)
    found = ask("devices", "--json").document
    assert found["devices"][0]["dtypes"] is None, "one too full to try is still listed"
    assert found["problems"] == ["cuda:1 does not answer", "no memory is free on cuda:0"]

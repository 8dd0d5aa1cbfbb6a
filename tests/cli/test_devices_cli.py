"""`bench devices`, with this machine's CPU and with devices made up."""

import json

import pytest
import typer
from typer.testing import CliRunner

from bench.cli.devices import devices
from bench.core.errors import MeasurementError
from bench.core.nouns import Device
from bench.devices.telemetry import nvml_links
from bench.devices.torch import backends, detect, probe

GIB = 2**30
H800 = Device(
    type="cuda",
    index=0,
    name="NVIDIA H800",
    vendor="nvidia",
    stack="CUDA 13.0",
    memory_bytes=80 * GIB,
    memory_free_bytes=79 * GIB,
    uuid="GPU-secret",
    compute_units=132,
    telemetry=("power", "energy"),
)
MYSTERY = Device(
    type="novel", index=0, name="Mystery", vendor=None, stack="torch.novel", memory_bytes=None
)


def run(*arguments):
    app = typer.Typer()
    app.command()(devices)
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def document(*arguments):
    return json.loads(run("--json", *arguments))


@pytest.fixture
def install(monkeypatch):
    """Put devices, problems and dtype states in the place of this machine's."""

    def put(*found, problems=(), states=None):
        survey = detect.Survey(devices=found, problems=tuple(problems))
        monkeypatch.setattr(detect, "survey", lambda: survey)
        monkeypatch.setattr(probe, "probe_dtypes", lambda label: states or {"fp32": "ok"})

    return put


def test_this_machine_s_cpu_is_shown_with_what_works():
    found = document()["devices"]
    assert found[-1]["label"] == "cpu"
    assert found[-1]["dtypes"]["fp32"] == "ok"
    assert found[-1]["memory_bytes"] > 0


def test_the_table_names_the_same_device():
    text = run("--no-probe")
    assert "cpu" in text
    assert "not tried" in text
    assert "torch 2." in text


def test_without_probing_dtypes_are_null():
    assert document("--no-probe")["devices"][-1]["dtypes"] is None


def test_a_device_of_the_catalogue_is_named(install):
    install(H800)
    assert len(document()["devices"][0]["chips"]) == 1
    assert "not in the catalogue" not in run()


def test_a_device_outside_the_catalogue_says_so(install):
    install(MYSTERY)
    text = run()
    assert "not in the catalogue" in text
    assert "unknown" in text
    assert document()["devices"][0]["chips"] == []


def test_several_matching_rows_are_called_ambiguous(install, monkeypatch):
    from bench.hardware import chips

    install(MYSTERY)
    two = chips.load_chips()[:2]
    monkeypatch.setattr(chips, "match_device", lambda name, memory_bytes, **_: list(two))
    assert document()["devices"][0]["chips"] == [chip.id for chip in two]
    assert "ambiguous" in run()


def test_wrong_numbers_cannot_be_overlooked(install):
    install(MYSTERY, states={"fp32": "ok", "bf16": "wrong", "fp16": "raises"})
    text = " ".join(run().split())
    assert "WRONG" in text
    assert "bf16" in text
    assert "fp16" not in text


def test_a_device_too_full_to_try_is_still_listed(install, monkeypatch):
    install(H800)

    def refuse(label):
        raise MeasurementError(f"no memory is free on {label}")

    monkeypatch.setattr(probe, "probe_dtypes", refuse)
    found = document()
    assert found["devices"][0]["dtypes"] is None
    assert found["problems"] == ["no memory is free on cuda:0"]


def test_problems_of_other_devices_are_printed(install):
    install(H800, problems=["cuda:1 does not answer"])
    assert "problem: cuda:1 does not answer" in run()


def test_links_are_printed(install, monkeypatch):
    install(H800)
    link = nvml_links.DeviceLink(first="cuda:0", second="cuda:1", kind="nvlink", detail="8 links")
    monkeypatch.setattr(nvml_links, "device_links", lambda found: [link])
    assert "link cuda:0 - cuda:1: nvlink 8 links" in run()
    assert document()["links"][0]["second"] == "cuda:1"


def test_a_vendor_package_that_failed_is_printed_with_its_reason(install, monkeypatch):
    install(H800)
    failed = backends.PackageState(
        module="torch_npu", state="failed", reason="OSError: libascendcl.so"
    )
    monkeypatch.setattr(backends, "load_packages", lambda: (failed,))
    assert "torch_npu failed: OSError: libascendcl.so" in run()


def test_the_identifier_of_a_device_is_not_printed(install):
    install(H800)
    text = run("--json")
    assert "secret" not in text
    assert len(json.loads(text)["devices"][0]["uuid_hash"]) == 16

"""`bench devices`, with this machine's CPU and with devices made up."""

import json

import pytest

from bench.cli import main
from bench.core.errors import MeasurementError
from bench.core.nouns import Device
from bench.devices.telemetry import nvml_links
from bench.devices.torch import backends, detect, probe
from bench.hardware import chips

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


@pytest.fixture
def run(capsys):
    """What the verb prints."""

    def call(*arguments):
        assert main(["devices", *arguments]) == 0
        return capsys.readouterr().out

    return call


@pytest.fixture
def document(run):
    return lambda *arguments: json.loads(run("--json", *arguments))


@pytest.fixture
def install(monkeypatch):
    """Put devices, problems and dtype states in the place of this machine's."""

    def put(*found, problems=(), states=None):
        survey = detect.Survey(devices=found, problems=tuple(problems))
        monkeypatch.setattr(detect, "survey", lambda: survey)
        monkeypatch.setattr(probe, "probe_dtypes", lambda label: states or {"fp32": "ok"})

    return put


def test_this_machine_s_cpu_is_shown_with_what_works(run, document):
    found = document()["devices"][-1]
    assert found["label"] == "cpu"
    assert found["dtypes"]["fp32"] == "ok"
    assert found["memory_bytes"] > 0
    text = run("--no-probe")
    assert "cpu" in text and "not tried" in text and "torch 2." in text
    assert document("--no-probe")["devices"][-1]["dtypes"] is None


def test_a_device_is_named_with_its_row_of_the_catalogue(run, document, install, monkeypatch):
    install(H800)
    assert len(document()["devices"][0]["chips"]) == 1
    assert "not in the catalogue" not in run()
    install(MYSTERY)
    text = run()
    assert "not in the catalogue" in text and "unknown" in text
    assert document()["devices"][0]["chips"] == []
    two = chips.load_chips()[:2]
    monkeypatch.setattr(chips, "match_device", lambda name, memory_bytes, **_: list(two))
    assert document()["devices"][0]["chips"] == [chip.id for chip in two]
    assert "ambiguous" in run()


def test_wrong_numbers_cannot_be_overlooked(run, install):
    install(MYSTERY, states={"fp32": "ok", "bf16": "wrong", "fp16": "raises"})
    text = " ".join(run().split())
    assert "WRONG" in text
    assert "bf16" in text
    assert "fp16" not in text


def test_a_device_too_full_to_try_is_still_listed(document, install, monkeypatch):
    install(H800)

    def refuse(label):
        raise MeasurementError(f"no memory is free on {label}")

    monkeypatch.setattr(probe, "probe_dtypes", refuse)
    found = document()
    assert found["devices"][0]["dtypes"] is None
    assert found["problems"] == ["no memory is free on cuda:0"]


def test_problems_links_and_failed_packages_are_printed(run, document, install, monkeypatch):
    install(H800, problems=["cuda:1 does not answer"])
    link = nvml_links.PhysicalLink(first="cuda:0", second="cuda:1", kind="nvlink", detail="8 links")
    monkeypatch.setattr(nvml_links, "device_links", lambda found: [link])
    failed = backends.PackageState(
        module="torch_npu", state="failed", reason="OSError: libascendcl.so"
    )
    monkeypatch.setattr(backends, "load_packages", lambda: (failed,))
    text = run()
    assert "problem: cuda:1 does not answer" in text
    assert "link cuda:0 - cuda:1: nvlink 8 links" in text
    assert "torch_npu failed: OSError: libascendcl.so" in text
    assert document()["links"][0]["second"] == "cuda:1"


def test_the_identifier_of_a_device_is_not_printed(document, install):
    install(H800)
    found = document()
    assert "secret" not in json.dumps(found)
    assert len(found["devices"][0]["uuid_hash"]) == 16

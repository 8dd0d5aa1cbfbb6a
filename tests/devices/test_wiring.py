"""Links as NVML tells them, with a pretend NVML."""

import types

import pytest

from bench.core.nouns import Device
from bench.devices import wiring


class NVMLError(Exception):
    pass


def device(index):
    return Device(
        type="cuda",
        index=index,
        name="NVIDIA A100",
        vendor="nvidia",
        stack="CUDA 13.0",
        memory_bytes=None,
        uuid=f"uuid-{index}",
    )


class FakeNvml:
    """Devices `uuid-0`, `uuid-1`, ...; `links[device]` lists the far ends of its NVLinks."""

    NVMLError = NVMLError
    NVML_NVLINK_MAX_LINKS = 4
    NVML_NVLINK_DEVICE_TYPE_GPU = 0
    NVML_NVLINK_DEVICE_TYPE_SWITCH = 2

    def __init__(self, links=None, topology=50):
        self.links = links or {}
        self.topology = topology
        self.num_open = 1

    def nvmlShutdown(self):  # noqa: N802
        self.num_open -= 1

    def nvmlDeviceGetHandleByUUID(self, uuid):  # noqa: N802
        if uuid.startswith(("GPU-uuid-",)):
            return int(uuid.removeprefix("GPU-uuid-"))
        raise NVMLError

    def nvmlDeviceGetMemoryInfo(self, handle):  # noqa: N802
        return types.SimpleNamespace(free=1000 + handle)

    def nvmlDeviceGetMaxPcieLinkGeneration(self, handle):  # noqa: N802
        return 4

    def nvmlDeviceGetMaxPcieLinkWidth(self, handle):  # noqa: N802
        return 16

    def nvmlDeviceGetPciInfo(self, handle):  # noqa: N802
        return types.SimpleNamespace(busId=f"bus-{handle}")

    def nvmlDeviceGetNvLinkState(self, handle, link):  # noqa: N802
        if link >= len(self.links.get(handle, [])):
            raise NVMLError
        return 1

    def nvmlDeviceGetNvLinkRemoteDeviceType(self, handle, link):  # noqa: N802
        return 2 if self.links[handle][link] == "switch" else 0

    def nvmlDeviceGetNvLinkRemotePciInfo(self, handle, link):  # noqa: N802
        return types.SimpleNamespace(busId=self.links[handle][link].encode())

    def nvmlDeviceGetTopologyCommonAncestor(self, handle, peer):  # noqa: N802
        if self.topology is None:
            raise NVMLError
        return self.topology


@pytest.fixture
def install(monkeypatch):
    def put(nvml):
        monkeypatch.setattr(wiring, "import_nvml", lambda: nvml)
        return nvml

    return put


def pair():
    links = [
        (wire.kind, wire.detail)
        for wire in wiring.wires([device(0), device(1)])
        if wire.second != "host"
    ]
    return links


def test_direct_nvlinks_between_two_devices_are_counted(install):
    install(FakeNvml({0: ["bus-1", "bus-1", "bus-2"], 1: ["bus-0", "bus-0"]}))
    assert pair() == [("nvlink", "2 links")]


def test_links_through_a_switch_are_told(install):
    install(FakeNvml({0: ["switch"] * 4, 1: ["switch"] * 4}))
    assert pair() == [("nvlink", "4 links through NVSwitch")]


def test_a_switch_that_only_one_of_them_has_joins_nothing(install):
    install(FakeNvml({0: ["switch"] * 4}, topology=20))
    assert pair() == [("pcie", "several PCIe switches")]


def test_devices_without_nvlink_are_joined_by_pcie(install):
    install(FakeNvml(topology=50))
    assert pair() == [("pcie", "across processor sockets")]


def test_a_pair_that_nvml_does_not_know_is_left_out(install):
    install(FakeNvml(topology=None))
    assert pair() == []


def test_every_device_states_its_slot(install):
    install(FakeNvml())
    hosts = [wire for wire in wiring.wires([device(0), device(1)]) if wire.second == "host"]
    assert [(wire.first, wire.detail) for wire in hosts] == [
        ("cuda:0", "gen 4 x16"),
        ("cuda:1", "gen 4 x16"),
    ]


def test_free_memory_is_that_of_the_device_asked_for(install):
    nvml = install(FakeNvml())
    assert wiring.memory_free_bytes(device(3)) == 1003
    assert nvml.num_open == 0


def test_without_a_driver_nothing_is_told(install):
    install(None)
    assert wiring.memory_free_bytes(device(0)) is None
    assert wiring.wires([device(0), device(1)]) == []

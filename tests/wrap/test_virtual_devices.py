"""A program sees as many accelerators as ranks; torch itself sees the one that is there."""

from types import SimpleNamespace

import pytest
import torch

from bench.wrap.virtual_devices import show_devices

COUNTS = "counts = module.device_count(), torch.accelerator.device_count()"


def test_only_the_program_sees_devices_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def properties(device: int) -> str:
        assert device == 0, "only the first is there"
        return "the only one"

    module = SimpleNamespace(device_count=lambda: 1, get_device_properties=properties)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)
    monkeypatch.setattr(torch, "get_device_module", lambda _type: module)
    show_devices(8)
    for name, expected in (("__main__", 8), ("lightning.fabric", 8), ("torch.cuda.random", 1)):
        asker = {"__name__": name, "module": module, "torch": torch}
        exec(COUNTS, asker)
        assert asker["counts"] == (expected, expected)
    assert {module.get_device_properties(index) for index in range(8)} == {"the only one"}

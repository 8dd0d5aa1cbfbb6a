"""Programs on an accelerator: which device they compute on, and whole runs on a simulated one.

The simulated device is loaded by the program itself, through an entry point of torch beside ours.
"""

from pathlib import Path

import pytest
import torch

from bench.wrap.look import device_in_use
from tests.wrap.conftest import Wrap

pytest_plugins = ["tests.simdev.fixture"]


def shown(device: str, *, held_bytes: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have torch see one accelerator, and so much of its memory in use."""
    where = torch.device(device)
    monkeypatch.setattr(
        torch.accelerator, "current_accelerator", lambda **_: torch.device(where.type)
    )
    monkeypatch.setattr(torch.accelerator, "current_device_index", lambda: where.index)

    def allocated(_index: int) -> int:
        if held_bytes is None:
            raise RuntimeError("no statistics")
        return held_bytes

    monkeypatch.setattr(torch.accelerator, "memory_allocated", allocated)


def test_a_program_computes_where_most_of_what_it_trains_lies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cpu, meta = torch.device("cpu"), torch.device("meta")
    weights = [torch.zeros(4, 4)]
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: None)
    assert device_in_use(cpu, parameters=weights) == cpu
    assert device_in_use(None, parameters=[]) == cpu
    assert device_in_use(torch.device("cuda:1"), parameters=weights) == torch.device("cuda:1")
    # An accelerator that is there and holds nothing is not used.
    shown("cuda:1", held_bytes=0, monkeypatch=monkeypatch)
    assert device_in_use(cpu, parameters=weights) == cpu
    # Parameters that are updated on the CPU, of a net that computes elsewhere.
    shown("cuda:1", held_bytes=2**20, monkeypatch=monkeypatch)
    assert device_in_use(cpu, parameters=weights) == torch.device("cuda:1")
    shown("xpu:3", held_bytes=None, monkeypatch=monkeypatch)
    assert device_in_use(None, parameters=[]) == torch.device("xpu:3")
    assert device_in_use(cpu, parameters=[torch.zeros(2, device=meta), *weights]) == cpu


@pytest.mark.slow
def test_a_program_on_the_second_device_of_a_backend_that_nobody_knows(
    simdev_path: Path, wrap: Wrap
) -> None:
    """It never makes that device the current one, and neither does being measured."""
    ran = wrap(command=["python", "on_device.py", "simdev:1"], path=simdev_path)
    assert ran.code == 0, ran.output
    (row,) = ran.rows
    assert (row["device"], row["device_name"]) == ("simdev:1", "Simulated Device")
    assert (row["step_clock"], row["status"]) == ("event", "WARN")
    assert set(str(row["reasons"]).split(";")) <= {"smoke", "host_bound", "input_bound"}
    assert row["num_parameters"] == 4 * (1024**2 + 1024)
    # Parameters and gradients lie there at once, in fp32.
    peak_bytes, reserved_bytes = row["mem_alloc_peak_bytes"], row["mem_reserved_peak_bytes"]
    assert isinstance(peak_bytes, int) and isinstance(reserved_bytes, int)
    assert 8 * 4 * 1024**2 < peak_bytes <= reserved_bytes
    assert row.get("energy_j") is None
    # Two products a layer backward and one forward, but for the first layer's input.
    assert row["flops_per_item"] == pytest.approx(2 * 1024**2 * (3 * 4 - 1), rel=0.01)


@pytest.mark.slow
def test_a_program_on_an_accelerator_is_replayed_over_links(simdev_path: Path, wrap: Wrap) -> None:
    """No kernel can read that device's clock, and it is made the current one behind the group."""
    flags = ("--devices", "8", "--link", "10gbe,pcie4")
    ran = wrap(*flags, command=["python", "on_device.py", "simdev:0", "ddp"], path=simdev_path)
    assert ran.code == 0, ran.output
    assert "every row over a link is simulated: a link is emulated on" in ran.output
    rows = {str(row["link"]): row for row in ran.rows}
    assert set(rows) == {"10gbe", "pcie4"}
    for row in rows.values():
        assert (row["device"], row["mode"], row["parallel"]) == ("simdev:0", "simulated", "ddp")
        assert row["comm_bytes"] == 4 * row["num_parameters"]  # type: ignore[operator]
        parts = float(str(row["compute_step_ms"])) + float(str(row["comm_exposed_ms"]))
        assert parts == pytest.approx(float(str(row["step_median_ms"])), rel=0.03)
    slow, fast = (float(str(rows[link]["comm_total_ms"])) for link in ("10gbe", "pcie4"))
    assert slow > 5 * fast

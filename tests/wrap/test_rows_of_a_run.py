"""What one run of `bench wrap` leaves beside its rows, and that it cannot be resumed."""

import json
from pathlib import Path

import pytest

from bench.cli import main
from bench.results.beside_rows import read_profiles
from tests.wrap.conftest import Wrap

FLOPS_PER_ITEM = 2 * (16 * 32 * 2 + 32 * 4 * 3)
"""By hand: each product forward, for its weights, and for its input but where that is data."""


def test_a_run_of_a_program_is_like_a_run_of_a_workload(
    wrap: Wrap, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["python", "two_layers.py", "--api-token", "sesame", "--rate", "0.1"]
    done = wrap("--name", "layers-train", command=command)
    assert done.code == 0
    assert "layers-train: cpu, fp32, batch 8\n" in done.output
    assert "a step of layers-train is an update of SGD; 8 samples, the first" in done.output
    [row] = done.rows
    assert (row["workload"], row["items_unit"], row["data"]) == ("layers-train", "sample", "script")
    assert row["flops_per_item"] == pytest.approx(FLOPS_PER_ITEM)
    assert row["flops_method"] == "counted"
    assert row.get("size") is None and row.get("size_choice") is None
    params = json.loads(str(row["params_json"]))
    assert params == {"--api-token": "***", "--rate": "0.1", "step": "optimizer"}
    files = list((tmp_path / "results0").iterdir())
    assert not [file for file in files if b"sesame" in file.read_bytes()]

    [path] = [file for file in files if file.suffix == ".csv"]
    profiles = read_profiles(path)
    assert list(profiles) == [(row["config_hash"], "cpu")]
    [profile] = profiles.values()
    products = [one for one in profile.operators if one.kind == "gemm"]
    assert sum(one.flops for one in products) == pytest.approx(8 * FLOPS_PER_ITEM)
    assert main(["run", "--resume", str(path)]) == 2
    assert "its command is in no file" in capsys.readouterr().err

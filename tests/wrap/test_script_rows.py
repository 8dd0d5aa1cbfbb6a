"""Rows of a user's own program in the verbs that read rows."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from bench.analysis.projection.measured import measured_of
from bench.analysis.trials.configuration import gather
from bench.analysis.trials.titles import differing, title_of
from bench.cli import main
from bench.results.schema import Row, Value
from bench.run.planning.script_arguments import parameters_of
from tests.analysis.synthetic_rows import trials, write_csv
from tests.analysis.test_projection_rows import ROOFS


def program(name: str = "train", arguments: str = "", step_ms: float = 10.0, **cells: Any) -> Row:
    """Cells of a wrapped program's rows; `optimizer` says that it trains."""
    params = json.dumps({**parameters_of(arguments.split()), "step": "optimizer"})
    known: dict[str, Value] = {
        "workload": name,
        "workload_version": "0a1b2c3d",
        "size": None,
        "params_json": params,
        "config_hash": f"{name} {arguments}",
        "data": "script",
        "items_unit": "sample",
        "elements_unit": None,
        "elements_per_item": None,
        "optimizer": "AdamW",
        "batch": 32,
        "flops_per_item": 3e6,
        **cells,
    }
    return {"step_ms": step_ms, **known}


def rows_of(*programs: Row) -> list[Row]:
    return [row for one in programs for row in trials(**one)]  # type: ignore[arg-type]


INFER = program("mynet-infer", step_ms=4.0, optimizer=None, flops_per_item=1e6)


class Asked:
    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys

    def file(self, name: str, *programs: Row) -> str:
        return str(write_csv(self.folder / f"{name}.csv", rows_of(*programs)))

    def __call__(self, *words: object, code: int = 0) -> str:
        found = main([str(word) for word in words])
        out, err = self._capsys.readouterr()
        assert found == code, f"{words}: {err or out}"
        return out + err


@pytest.fixture
def ask(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Asked:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "100")
    return Asked(tmp_path, capsys)


def test_two_revisions_of_one_program_are_compared_and_named(ask: Asked) -> None:
    before = ask.file("before", program())
    after = ask.file("after", program(step_ms=20.0, workload_version="ffff0000"))
    printed = ask("compare", before, after, code=1)
    assert "REGRESSION" in printed
    assert "workload_version 0a1b2c3d -> ffff0000" in printed


def test_other_arguments_are_another_configuration(ask: Asked) -> None:
    longer = "--data /a/long/path/of/a/folder --lr 0.2"
    files = [
        ask.file("a", program(arguments=longer.replace("0.2", "0.1"))),
        ask.file("b", program(arguments=longer)),
    ]
    printed = ask("compare", *files, code=5)
    assert "nothing compared" in printed
    assert "--lr is 0.1, in b.csv 0.2" in printed
    assert "--data" not in printed
    [one, other] = gather(rows_of(program(arguments="--amp"), program(arguments="--lr=3")))
    shown = differing([one.first, other.first])
    assert title_of(one.first, shown=shown) == "train --amp"
    assert title_of(other.first, shown=shown) == "train --lr=3"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", {}),
        ("--lr 0.1 --amp", {"--lr": "0.1", "--amp": ""}),
        ("--lr=0.1 -c conf.yaml", {"--lr": "0.1", "-c": "conf.yaml"}),
        ("fit 'a b' --shift -1", {"--shift": "-1", "arguments": "fit 'a b'"}),
        ("lr=0.1 +x=2 --tag a --tag b", {"--tag": "a b", "arguments": "lr=0.1 +x=2"}),
    ],
)
def test_arguments_of_a_program_are_parameters(line: str, expected: dict[str, str]) -> None:
    assert parameters_of(shlex.split(line)) == expected


def test_a_gap_is_between_programs_of_one_name(ask: Asked) -> None:
    both = ask.file("both", program("mynet-train", "--lr 1", workload_version="ab"), INFER)
    [gap] = json.loads(ask("gap", both, "--json"))["gaps"]
    assert (gap["train"], gap["infer"], gap["per"]) == ("mynet-train", "mynet-infer", "sample")
    assert gap["time_ratio"]["value"] == pytest.approx(2.5, rel=0.05)
    assert gap["flops_ratio"]["value"] == pytest.approx(3.0)


def test_a_missing_half_of_a_program_is_named_and_never_started(ask: Asked) -> None:
    alone = ask.file("alone", program("train_ddp"))
    printed = ask("gap", alone, "--run", "--out", ask.folder / "new", code=5)
    assert "train_ddp fp32 on Test CPU has no inference beside it" in printed
    assert "bench wrap --name train_ddp-infer --step forward -- PROGRAM" in printed
    assert not (ask.folder / "new").exists()
    printed = ask("gap", ask.file("other", INFER), code=5)
    assert "bench wrap --name mynet-train -- PROGRAM" in printed


@pytest.mark.parametrize(
    ("name", "optimizer", "expected"),
    [
        ("train", "SGD", ("train", "train")),
        ("train_ddp", "SGD", ("train_ddp", "train")),
        ("my-net", None, ("my-net", "infer")),
        ("mynet-infer", None, ("mynet", "infer")),
        ("mynet-train", None, ("mynet", "train")),  # lost before it had an optimizer
    ],
)
def test_a_program_s_name_or_its_optimizer_says_whether_it_trains(
    name: str, optimizer: str | None, expected: tuple[str, str]
) -> None:
    [found] = gather(rows_of(program(name, optimizer=optimizer)))
    assert (found.net, found.phase) == expected
    [start], _ = measured_of(rows_of(program(name, optimizer=optimizer, **ROOFS)), profiles={})
    assert start.is_training is (expected[1] == "train")

"""`bench run` as typed: what it refuses, what it plans, what it prints and how it ends."""

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench import discovery
from bench.core.units import format_number
from bench.results.reader import read_rows
from bench.results.schema import REASONS
from bench.run import runner
from bench.run.launching import child, launch
from bench.run.runner import Runner
from tests.cli.conftest import Answer, Ask
from tests.run.bench_process import FAULTY, TIMED, only_file, rows_in

Run = Callable[..., Answer]


@pytest.fixture
def run(ask: Ask) -> Run:
    """Run `bench run` in this process, on the fake device."""

    def call(*words: object, code: int = 0) -> Answer:
        device = [] if "--resume" in words else ["--device", "fake"]
        return ask("run", *device, *words, code=code)

    return call


SLEEP = "import workloads.sleep\nclass Workload(workloads.sleep.Workload):"
BROKEN_FILES = {
    "raises": ("raise RuntimeError('oh dear')", "cannot be imported: RuntimeError: oh dear"),
    "exits": ("import sys; sys.exit(0)", "cannot be imported: SystemExit: 0"),
    "syntax": ("class Workload(:\n", "line 1 cannot be imported: SyntaxError"),
    "nothing": ("x = 1\n", "has no class Workload"),
    "another": ("class Workload: pass\n", "has no class Workload derived from"),
    "abstract": (
        "import bench.workload\nclass Workload(bench.workload.Workload): pass\n",
        "lacks build_net, dataset, flops_per_item, items, memory_bytes, num_parameters, "
        "loss (for its phase train), infer (for its phase infer)",
    ),
    "dtypes": (f"{SLEEP} dtypes = ()\n", "dtypes.py: some of fp32, "),
    "extras": (f"{SLEEP} extras = ('av',)\n", "extras.py: extra by module, as {'av': 'video'}"),
    "latin": ("# coding: latin-1\nraise RuntimeError('caf\xe9')", "RuntimeError: caf\xe9"),
}


def test_broken_workload_files_are_one_line_each_and_odd_ones_run(run: Run, tmp_path: Path) -> None:
    for kind, (content, words) in BROKEN_FILES.items():
        path = tmp_path / f"{kind}.py"
        path.write_text(content, encoding="latin-1")
        ended = run("-w", path, "--out", tmp_path / "results", code=2)
        assert ended.out == "", kind
        (line,) = ended.err.splitlines()
        assert str(path) in line and words in line
    path = tmp_path / "talking.py"
    content = f"# coding: latin-1\n# caf\xe9\nprint('hello')\n{Path(TIMED).read_text()}"
    path.write_text(content, encoding="latin-1")
    ended = run("-w", path, "--profile", "smoke", "--json", "--out", tmp_path)
    assert len(ended.document["rows"]) == 2


def dry(run: Run, *words: object) -> Any:
    return run("-w", TIMED, "--dry-run", "--json", *words).document


def test_an_authors_answer_that_is_no_number_is_named_and_the_other_phase_runs(
    run: Run, tmp_path: Path
) -> None:
    timed = Path(TIMED).read_text()
    only_in_training = "return {} if phase.is_training else 1"
    for method, answer, said in (
        ("flops_per_item", "-5", "flops_per_item() answers -5; it must be a finite number of 0"),
        ("flops_per_item", "float('nan')", "flops_per_item() answers nan"),
        ("flops_per_item", "[1]", "flops_per_item() answers list"),
        ("flops_per_item", "'5'", "flops_per_item() answers str"),
        ("flops_per_item", "10**400", "flops_per_item() answers int"),
        ("items", "0", "items() answers 0; it must be a finite number of 1 or more"),
    ):
        body = only_in_training.format(answer)
        text = re.sub(rf"(def {method}\(.*\n +)return .*", rf"\g<1>{body}", timed)
        out = tmp_path / f"{method}-{answer}"
        out.mkdir()
        (out / "mine.py").write_text(text)
        run("-w", out / "mine.py", "--out", out, code=4)
        rows = rows_in(out)
        failed = [row for row in rows if row["status"] == "FAILED"]
        assert {row["workload"] for row in failed} == {"mine-train"}, (method, answer)
        assert all(said in str(row["detail"]) for row in failed), failed
        assert {row["status"] for row in rows if row["workload"] == "mine-infer"} == {"OK"}
    text = timed.replace("return 1000 * self.batch", "return 1000.5 if self.batch == 1 else 'lots'")
    (tmp_path / "mine.py").write_text(text)
    phase = f"{tmp_path / 'mine.py'}:infer"
    run("-w", phase, "--out", tmp_path / "half")
    ended = run("-w", phase, "--batch", 2, "--out", tmp_path / "lots", code=2)
    assert "memory_bytes() answers str" in ended.err


def test_dry_run_shows_the_plan_and_runs_nothing(run: Run, tmp_path: Path) -> None:
    ended = run("-w", TIMED, "--dry-run", "--trials", "4", "--out", tmp_path / "results")
    assert ended.out.splitlines() == [
        "timed-train: fake, size - (the workload has one size), fp32, batch 1",
        "timed-infer: fake, size - (the workload has one size), fp32, batch 1",
        "2 configurations, 4 to 4 trials each, profile default, budget 6 min 00 s",
    ]
    assert not (tmp_path / "results").exists()
    plan = dry(run, "--budget", "80s", "--trials", "1")
    assert (plan["budget_s"], plan["is_budget_firm"]) == (80.0, True)
    # Two trials share it: 40 s each, 15 of them to start up; half of the rest is the window's.
    limits = plan["limits"]
    assert limits["warmup_max_s"] == pytest.approx(7.5)
    assert (limits["window_min_s"], limits["window_max_s"]) == (3.0, 6.0)
    limits = dry(run, "--budget", "50s", "--trials", "1")["limits"]
    assert (limits["window_min_s"], limits["window_max_s"]) == (3.0, pytest.approx(5.0))
    assert dry(run)["is_budget_firm"] is False
    # Data are named by their files, not by their place.
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        (folder / "a.txt").write_text("12345")
    (two / "._a.txt").write_text("of a file manager")

    def digest(place: Path) -> str:
        return str(dry(run, "--data", place)["planned"][0]["data_digest"])

    first, same = digest(one), digest(two)
    (two / "a.txt").write_text("54321")
    changed = digest(two)
    (two / "b.txt").write_text("")
    assert first == same and len({same, changed, digest(two)}) == 3


def test_commas_sweep_in_every_combination_and_each_once(run: Run) -> None:
    def configs(*words: str) -> list[dict[str, Any]]:
        return [one["config"] for one in dry(run, *words)["planned"]]

    swept = configs("--batch", "1,2", "--dtype", "fp32,bf16", "--set", "width=1,2,3")
    seen = {
        (one["phase"], one["dtype"], one["params"]["batch"], one["params"]["width"])
        for one in swept
    }
    assert len(seen) == len(swept) == 2 * 2 * 2 * 3
    sleep = run("-w", "sleep-infer", "--dry-run", "--json", "--size", "tiny,base").document
    sizes = [(one["config"]["size"], one["config"]["params"]) for one in sleep["planned"]]
    assert [(size, params["seconds"]) for size, params in sizes] == [("tiny", 0.02), ("base", 0.1)]
    repeated = (
        ["--batch", "2,2"],
        ["--dtype", "fp32,fp32"],
        ["--set", "width=2,2.0"],
        ["--set", "batch=2", "--batch", "2"],
        ["-w", TIMED],
    )
    for arguments in repeated:
        assert len(configs(*arguments)) == 2, arguments


def test_a_table_only_the_path_or_one_document_is_printed(run: Run, tmp_path: Path) -> None:
    ended = run("-w", TIMED, "--trials", "2", "--out", tmp_path)
    assert re.search(r"timed-train.* \[simulated\]", ended.out), "simulated is always said"
    assert re.search(r"\[[\d.]+, [\d.]+\]", ended.out), "two trials have an interval"
    path = only_file(tmp_path)
    assert ended.out.splitlines()[-1] == f"rows: {path}"
    assert "[1/4]" in ended.err and "[4/4]" in ended.err
    rows = rows_in(tmp_path)
    assert {row["mode"] for row in rows} == {"simulated"}
    # Simulated processes differ by 2 %, simulated steps by 1 %.
    for row in rows:
        expected_ms = 300 if row["workload"] == "timed-train" else 100
        assert float(row["step_median_ms"] or 0) == pytest.approx(expected_ms, rel=0.08)
        assert float(row["throughput_per_s"] or 0) == pytest.approx(1e3 / expected_ms, rel=0.08)
    smoke = ("-w", TIMED, "--profile", "smoke", "--out")
    quiet = run(*smoke, tmp_path / "quiet", "--quiet")
    assert quiet == (f"{only_file(tmp_path / 'quiet')}\n", "")
    document = run(*smoke, tmp_path / "json", "--json").document
    assert (document["exit_code"], document["interrupted"]) == (0, False)
    assert document["rows"] == [dict(row) for row in rows_in(tmp_path / "json")]
    assert Path(document["path"]).is_file()


def test_a_run_says_how_far_its_steps_changed_and_which_cannot_tell(
    run: Run, tmp_path: Path
) -> None:
    text = Path(TIMED).read_text()
    start = text.index("        return self.seconds * factor")
    steps = {  # of about 0.1 s: the number of the step is `self.num`
        "slower": "0.1 * 1.0015**self.num",
        "varied": "0.1 + 0.08 * random.Random(self.num).random()",
        "spiky": "2.0 if self.num % 40 == 0 else 0.1",
    }
    for name, step_s in steps.items():
        counted = "object.__setattr__(self, 'num', getattr(self, 'num', 0) + 1)"
        found = f"        import random\n        {counted}\n        return {step_s}\n"
        (tmp_path / f"{name}.py").write_text(text[:start] + found)
    files = [word for name in steps for word in ("-w", f"{tmp_path / name}.py:infer")]
    answer = run(*files, "--profile", "quick", "--out", tmp_path / "out")
    slower, varied, spiky = (
        next(row for row in rows_in(tmp_path / "out") if str(row["workload"]).startswith(name))
        for name in steps
    )
    # Within a second by 1.5 %, which is steady; over the window by more than 3 %.
    assert (slower["status"], slower["reasons"]) == ("WARN", "drift")
    rise = float(slower["drift_rise_frac"] or 0)
    assert 0.03 < rise < 0.06
    assert slower["drift_frac"] is None, "a column of older files, with another meaning"
    assert (varied["status"], varied["reasons"]) == ("OK", "noisy")
    known = float(varied["drift_half_width_frac"] or 0)
    assert known > 0.05
    assert f"noisy: 1 of 3 trials, varied-infer: {REASONS['noisy']}" in answer.out
    assert (
        f"  noisy: change of the steps known to {format_number(100 * known)} % only"
        in answer.out.splitlines()
    )
    words = f"  drift: steps became {format_number(100 * rise)} % slower, known to "
    assert words in answer.out
    assert (spiky["status"], spiky["reasons"]) == ("OK", None), "single slow steps are no change"


def test_spent_budget_skips_only_what_lacks_its_minimum(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("-w", f"{TIMED}:infer", "--out", tmp_path / "precise", "--quiet")
    assert 3 <= len(rows_in(tmp_path / "precise")) <= 5, "precise ones need only three trials"
    monkeypatch.setattr(runner, "is_precise", lambda rows, **_: False)
    monkeypatch.setattr(Runner, "_left_s", lambda self: 7 - sum(len(arm.done) for arm in self.arms))
    sweep = ("-w", "sleep-infer", "--batch", "1,2", "--budget", "1h", "--out")
    run(*sweep, tmp_path)
    rows = rows_in(tmp_path)
    assert sorted(Counter(row["batch"] for row in rows).values()) == [3, 4]
    assert "SKIPPED" not in {row["status"] for row in rows}
    monkeypatch.setattr(Runner, "_left_s", lambda self: 1 - len(self.rows))
    run(*sweep, tmp_path / "spent", code=4)
    (_, *skipped) = rows_in(tmp_path / "spent")
    found = [(row["status"], row["reasons"], row["detail"]) for row in skipped]
    assert found == [("SKIPPED", "budget", "the time budget was used up")] * 2


def test_order_is_interleaved_and_follows_from_the_seed(run: Run, tmp_path: Path) -> None:
    def order(name: str, seed: str) -> list[tuple[object, object, object]]:
        sweep = ("-w", TIMED, "--batch", "1,2", "--trials", "3", "--quiet", "--seed", seed)
        run(*sweep, "--out", tmp_path / name)
        rows = rows_in(tmp_path / name)
        return [(row["workload"], row["batch"], row["trial"]) for row in rows]

    first, again, other = order("first", "5"), order("again", "5"), order("other", "6")
    assert first == again != other
    for start in (0, 4, 8):
        in_round = first[start : start + 4]
        assert len({(workload, batch) for workload, batch, _ in in_round}) == 4
        assert {trial for _, _, trial in in_round} == {start // 4}


def keep_two(path: Path) -> list[str]:
    """Keep two rows of a file, as if the run was cut off; returns all its lines."""
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:3]))
    return lines


def begun(run: Run, out: Path, *more: object) -> Path:
    path = Path(run("--trials", "2", "--quiet", "--out", out, *more).out.strip())
    keep_two(path)
    return path


def test_resume_finishes_what_is_missing_and_nothing_else(run: Run, tmp_path: Path) -> None:
    path = begun(run, tmp_path, "-w", TIMED)
    before = read_rows(path)
    ended = run("--resume", path.stem.rpartition("_")[2], "--out", tmp_path, "--quiet")
    assert ended.out.strip() == str(path)
    rows = read_rows(path)
    assert rows[:2] == before
    assert len(rows) == len({(row["config_hash"], row["trial"]) for row in rows}) == 4
    run("-w", TIMED, "--trials", 1, "--out", tmp_path)
    for name in ("last", path.name, path.stem):
        said = run("--resume", name, "--out", tmp_path).err
        assert (f"left to do: run {rows[0]['run_id']} has all" in said) == (name != "last")
        assert "nothing is left to do: run " in said
    assert read_rows(path) == rows
    said = run("--resume", "gone", "--out", tmp_path, code=2).one_line
    assert f"no run of that id in {tmp_path}, which has {rows[0]['run_id']}, " in said
    none = run("--resume", "last", "--out", tmp_path / "none", code=2).one_line
    assert f"in {tmp_path / 'none'}, which has none; --out names the folder" in none


def test_a_failed_trial_leaves_its_traceback_and_its_retry_is_shown_as_one(
    run: Run, ask: Ask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(launch, "run_child", child.run_child)  # a process writes it
    for fault, words, retries in (("error", "in simulated_step_s", 0), ("kill", "last words", 1)):
        ended = run("-w", FAULTY, "--set", f"fault={fault}", "--out", tmp_path / fault, code=4)
        (path,) = (tmp_path / fault).glob("*.failures.txt")
        assert path.read_text().startswith("faulty-infer, trial 0, attempt 1: ")
        assert words in path.read_text() and "in simulated_step_s" not in ended.err
        assert ended.err.count(f"its output and traceback are in {path}\n") == 1
        assert ended.out.splitlines()[-2] == f"tracebacks: {path}"
        assert ended.err.count(" trial 1, retry (attempt 2), at most ") == retries
    words = ("--traceback", "run", "-w", FAULTY, "--set", "fault=error", "--device", "fake", "-q")
    assert "in simulated_step_s" in ask(*words, "--out", tmp_path, code=4).err


def test_fake_ranks_are_called_simulated_and_a_link_without_ranks_unused(run: Run) -> None:
    words = ("-w", f"{TIMED}:train", "--dry-run", "--devices")
    for more in ((), ("--link", "ndr"), ("--link", "ndr,25gbe")):
        said = run(*words, "1,2", *more).out
        assert "[simulated: the fake device's time]" in said and "[real" not in said
        assert "not used" not in said
    assert "--link ndr,25gbe is not used on 1 device" in run(*words, 1, *more).out


def test_what_changed_since_the_run_began_is_refused_or_not_measured(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mine, data = tmp_path / "mine.py", tmp_path / "data" / "a.txt"
    shutil.copy(TIMED, mine)
    data.parent.mkdir()
    data.write_text("1")
    path = begun(run, tmp_path / "results", "-w", mine, "--data", data.parent)
    rows, sidecar = read_rows(path), path.with_name(path.stem + ".env.json")
    stored = sidecar.read_text()

    def refused(*flags: str, code: int = 4) -> str:
        said = run("--resume", path, *flags, code=code).err
        assert read_rows(path) == rows
        assert len(said.splitlines()) == 1
        return said

    flags = (["-w", TIMED], ["--trials", "3"], ["--dry-run"], ["--seed", "0"], ["--device", "cpu"])
    for flag in flags:
        said = refused(*flag, code=2)
        assert "--resume goes on with the stored plan and takes no --" in said
    content = json.loads(stored)
    content["environment"]["torch"]["device_name"] = "Some Accelerator 80GB"
    sidecar.write_text(json.dumps(content))
    assert "the run began on Some Accelerator 80GB, this is fake device" in refused()
    empty = {**content["request"]["plan"], "planned": []}
    for plan in ({}, empty, {"planned": [{}]}, {"planned": [3]}, [], {"planned": "abc"}):
        sidecar.write_text(json.dumps({**content, "request": {"plan": plan}}))
        assert "its plan cannot be read" in refused(code=2)
    sidecar.write_text(stored)
    data.write_text("2")
    assert f"--data {data.parent} changed since the run began" in refused()
    plan = content["request"]["plan"]
    older = [{**plan["planned"][0], "data_digest": "files-0123456789ab"}]
    request = {**content["request"], "plan": {**plan, "planned": older}}
    sidecar.write_text(json.dumps({**json.loads(stored), "request": request}))
    assert f"names --data {data.parent} by its files' sizes, as an older bench did" in refused()
    sidecar.write_text(stored)
    data.write_text("1")
    mine.write_text(mine.read_text().replace("3 if phase.is_training", "4 if phase.is_training"))
    discovery.load.cache_clear()  # as in the new process that resumes
    discovery.source_hash.cache_clear()
    assert "workload mine changed since the run began" in refused()
    # Now the parent has it loaded; what the trial's process will find is another file.
    monkeypatch.setattr(launch, "run_child", child.run_child)
    mine.write_text(mine.read_text().replace("return self.batch", "return 2 * self.batch"))
    run("-w", f"{mine}:infer", "--trials", "1", "--out", tmp_path / "changed", code=4)
    (row,) = rows_in(tmp_path / "changed")
    assert (row["status"], row["reasons"]) == ("FAILED", "error")
    assert "workload mine changed since the run began" in str(row["detail"])


def test_resume_of_a_shrunk_batch_counts_its_rows(run: Run, tmp_path: Path) -> None:
    arguments = ("-w", FAULTY, "--set", "fault=memory", "--set", "above_batch=3", "--batch", "4")
    ended = run(*arguments, "--oom-shrink", "--trials", "2", "--quiet", "--out", tmp_path)
    path = Path(ended.out.strip())
    assert len(keep_two(path)) == 4, "header, out of memory, two trials at half the batch"
    run("--resume", path, "--quiet")
    rows = read_rows(path)
    keys = [(row["config_hash"], row["trial"], row["attempt"]) for row in rows]
    assert len(set(keys)) == len(keys)
    usable = [(row["batch"], row["trial"]) for row in rows if row["status"] == "WARN"]
    assert usable == [(2, 0), (2, 1)]


def test_home_is_expanded_in_each_path_and_in_variables(
    run: Run, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCH_RUN_OUT", "~/by variable")
    run("-w", f"{TIMED}:infer", "--trials", "1")
    run("-w", f"{TIMED}:infer", "--trials", "1", "--out=~/typed")
    rows_in(home / "by variable")
    path = only_file(home / "typed")
    monkeypatch.setenv("BENCH_EXPORT_OUTPUT", "~/rows.json")
    ask("export", f"~/typed/{path.name}", "--to", "json")
    assert json.loads((home / "rows.json").read_text())
    assert [one.name for one in tmp_path.iterdir()] == ["home"], "no folder is called ~"
    refused = ask("export", "~nobody here/x.csv", "--to", "json", code=2)
    assert refused.err.startswith("bench: CSV '~nobody here/x.csv' cannot be looked up")

"""No command line, however wrong, is a fault of ours: each ends with a code and at most a line."""

import errno
import functools
import random
import shlex
import subprocess
from collections import Counter
from pathlib import Path

import pytest
import typer

import bench.cli
from bench.cli import main
from tests.cli.test_mistakes import MISTAKES, WORDS

NUMBER_TEXT = "0 1 2,4 1e3 -1 1_0 \u0663 0x10 1,,2 , nan inf 1e400 1e-400 0.5 3.0 +5"
NUMBERS = [*NUMBER_TEXT.split(), "9" * 30, "9" * 400, ""]
NAMES = "sleep sleep-infer imaging-train llm-* llm-decode all * [ ./ .py ~ .. TIMED TIMED:infer"
KEY_TEXT = "batch seconds width shape note is_wide filters patch layers heads context = id"
VALUES = ["1x2x3", "0x0x0", "true", "none", "x", "-1x-1", "8x16", "1x", *NUMBERS]
FLAGS = {
    "--workload": NAMES.split(),
    "--size": ["tiny", "small", "base,large", "Tiny", "tiny,tiny", ","],
    "--dtype": ["fp32", "bf16,fp16", "tf32", "int8"],
    "--data": ["resident", "generated", ".", "TIMED", "~nobody/x", ""],
    "--profile": ["smoke", "quick", "default", "rigorous"],
    **dict.fromkeys(["--batch", "--threads", "--workers", "--trials", "--seed"], NUMBERS),
    **dict.fromkeys(["--budget", "--timeout"], [n + u for n in NUMBERS for u in ("", "s", "ms")]),
    "--set": [f"{key}={value}" for key in KEY_TEXT.split() for value in VALUES],
    **dict.fromkeys(["--compile", "--channels-last", "--oom-shrink", "--json", "-q"], [None]),
}
# None with a NUL: no system passes one on.
PIECES = [*"\n\té\udc80", "", " ", "--", "-", "-z", "=", "''", "\x1b[31m", "昇腾"]


def planned_line(choose: random.Random) -> list[str]:
    """A dry run on the fake device with up to four flags, many of them good."""
    odd = "".join(choose.choices("ab:/\\.py-*[]é ", k=choose.randrange(12)))
    name = choose.choice([*FLAGS["--workload"], odd])
    words = ["run", "--dry-run", "--device", "fake", "-w", name]
    for _ in range(choose.randrange(5)):
        flag = choose.choice([*FLAGS, *["--set"] * 6])
        value = choose.choice(FLAGS[flag])
        words += [flag] if value is None else [flag, value]
    return words


def wrapped_line(choose: random.Random) -> list[str]:
    """A program under up to three flags; none is started here, so that its look fails."""
    words = ["wrap"]
    values = {
        "--step": ["optimizer", "forward", "loader", "mark", "banana"],
        "--link": ["pcie4", "10gbe,pcie4", "bw=1GB/s,latency=1us", "pcie9"],
        "--devices": ["2", "8,4", *NUMBERS],
        "--mode": ["throttled", "emulated", "simulated", "real"],
        **dict.fromkeys(["--items-per-step", "--tp", "--threads", "--trials"], NUMBERS),
        **dict.fromkeys(["--to-end", "--quiet", "--json"], [None]),
        "--name": ["mine", "", "a/b", "\u6607\u817e"],
    }
    for flag in choose.choices([*values], k=choose.randrange(4)):
        value = choose.choice(values[flag])
        words += [flag] if value is None else [flag, value]
    program = ["true", "--epochs", "1", "--token=x", *choose.choices(PIECES, k=2)]
    return [*words, *choose.choice([["--"], []]), *program[: choose.randrange(6)]]


def with_mistakes(words: list[str], *, choose: random.Random, pieces: list[str]) -> list[str]:
    """The line with more mistakes: words gone, doubled, swapped, foreign or cut."""
    words = list(words)
    for _ in range(choose.randint(1, 3)):
        at = choose.randint(1, len(words))
        match choose.randrange(4):
            case 0:
                words[at:at] = [choose.choice(pieces)]
            case 1:
                del words[at : at + 1]
            case 2:
                words[at:at] = words[choose.randrange(len(words)) :][:2]
            case 3 if at < len(words):
                word = words[at]
                cut = choose.randint(0, len(word))
                words[at] = word[:cut] + choose.choice(pieces)[:4] + word[cut + 1 :]
    return words


@pytest.mark.parametrize(
    "num", [1_000, pytest.param(20_000, marks=(pytest.mark.slow, pytest.mark.timeout(1800)))]
)
def test_no_command_line_at_all_is_a_fault_of_ours(
    num: int,
    csv: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "no process in this test")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "Popen", refuse)
    # Spare each call the 20 ms in which typer builds its parser.
    monkeypatch.setattr("bench.cli.app", typer.main.get_command(bench.cli.app))
    named = {**WORDS, "CSV": csv, "LONG": "x" * 300}
    lines = [shlex.split(one.partition(" => ")[0]) for one in MISTAKES.strip().splitlines()]
    pieces = [word for line in lines for word in line[1:]] + PIECES + NUMBERS
    choose, codes = random.Random(num), Counter[int]()
    for number in range(num):
        line = wrapped_line(choose) if number % 10 > 7 else planned_line(choose)
        if number % 2:
            line = choose.choice([*lines, line])
            line = with_mistakes(line, choose=choose, pieces=pieces)
            line += ["--device", "fake"] * (line[0] == "run")
        line = [functools.reduce(lambda w, n: w.replace(n, named[n]), named, w) for w in line]
        code = main(line)
        said = capsys.readouterr()
        assert code != 70 and "Traceback" not in said.err, (line, said.err)
        assert code or number % 2 or said.out, line
        assert code != 2 or said.err.splitlines()[-1].startswith("bench: "), line
        codes[code] += 1
    assert codes[0] > num / 20 and codes[2], "enough get through to be planned"

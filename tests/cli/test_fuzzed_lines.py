"""No command line, however wrong, is a fault of ours: each ends with a code and at most a line."""

import errno
import functools
import random
import shlex
import subprocess
from pathlib import Path

import pytest

from bench.cli import main
from tests.cli.test_mistakes import MISTAKES, WORDS

SLOW = (pytest.mark.slow, pytest.mark.timeout(1800))


def fuzzed_line(choose: random.Random, *, lines: list[list[str]], pieces: list[str]) -> list[str]:
    """A mistake of the list with more mistakes: words gone, doubled, swapped, foreign or cut."""
    words = list(choose.choice(lines))
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


@pytest.mark.parametrize("num", [150, pytest.param(10_000, marks=SLOW)])
def test_no_command_line_at_all_is_a_fault_of_ours(
    num: int,
    csv: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "no process in this test")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    named = {**WORDS, "CSV": csv, "LONG": "x" * 300}
    lines = []
    for mistake in MISTAKES.strip().splitlines():
        words = shlex.split(mistake.partition(" => ")[0])
        words = [functools.reduce(lambda w, n: w.replace(n, named[n]), named, w) for w in words]
        lines.append([*words, "--device", "fake"] if words[0] == "run" else words)
    pieces = [word for line in lines for word in line[1:]]
    pieces += [
        "",
        " ",
        "\n",
        "--",
        "-",
        "=",
        "''",
        "\x00",
        "é",
        "\udc80",
        "昇腾",
        "1e999",
        "nan",
        "-1",
    ]
    choose, codes = random.Random(num), set()
    for _ in range(num):
        line = fuzzed_line(choose, lines=lines, pieces=pieces)
        codes.add(code := main(line))
        said = capsys.readouterr().err
        assert code != 70 and "Traceback" not in said, (line, said)
    assert {0, 2} <= codes

"""What `bench wrap` is asked to do: checked before the program starts, kept without secrets."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.core.errors import UsageError, one_of
from bench.core.nouns import STEP_MARKS, StepMark
from bench.hardware.links.topology import parse_topology
from bench.run.planning.checks import check_values
from bench.run.planning.request import RunRequest

AUTOLOAD = "TORCH_DEVICE_BACKEND_AUTOLOAD"
_LAUNCHERS = (
    *("torch.distributed.run", "torch.distributed.launch", "accelerate.commands.launch"),
    *("deepspeed.launcher.runner", "cProfile", "coverage"),
)
"""Modules that `python -m` starts, and that start the program."""
_IN_COMMAND = "bench wrap ... -- torchrun --nproc-per-node 8 train.py"


@dataclass(frozen=True, kw_only=True)
class WrapRequest:
    """What `bench wrap` is asked to do."""

    command: tuple[str, ...]
    step: StepMark = "optimizer"
    items_per_step: int | None = None
    runs_to_end: bool = False
    name: str | None = None
    run: RunRequest = RunRequest()
    """Layout and effort, as `bench run` takes them."""

    def __post_init__(self) -> None:
        if not self.command:
            raise UsageError("bench wrap needs a command, such as: bench wrap -- python train.py")
        if self.step not in STEP_MARKS:
            raise one_of("--step", self.step, list(STEP_MARKS))
        if self.items_per_step is not None and self.items_per_step < 1:
            raise UsageError(f"--items-per-step {self.items_per_step} must be at least 1")
        check_values(self.run)
        self._check_ranks()

    def _check_ranks(self) -> None:
        run, tensor = self.run, self.run.tp or 1
        if any(devices > 1 for devices in run.devices) and not run.links:
            raise UsageError(
                "--devices needs --link: one rank is real, the others and the link are modelled; "
                f"for real ranks start them in the command: {_IN_COMMAND}"
            )
        if run.tp is not None and not run.links:
            raise UsageError("--tp needs --devices and --link: it divides ranks that are modelled")
        if run.links and not run.devices and not self.is_throttled:
            raise UsageError("--link needs --devices, such as --devices 8: the ranks that share it")
        for devices in run.devices:
            if devices % tensor:
                raise UsageError(f"--tp {tensor} does not divide --devices {devices}")
        for topology in map(parse_topology, run.links):
            for devices in run.devices:
                if devices > 1:
                    topology.check_devices(devices)

    @property
    def is_throttled(self) -> bool:
        """Whether the program's own ranks are held back, and none is virtual."""
        return self.run.mode == "throttled"

    @property
    def script_place(self) -> int:
        """Where in the command the program's file is: its first .py, or what follows -m."""
        for place, word in enumerate(self.command):
            if word.endswith(".py"):
                return place
            if word == "-m" and self.command[place + 1 :] and not self._launches(place + 1):
                return place + 1
        shells = [place for place, word in enumerate(self.command) if word.endswith(".sh")]
        return shells[0] if shells else 0

    def _launches(self, place: int) -> bool:
        """Whether this module of the command starts another, or a file, that follows."""
        rest = self.command[place + 1 :]
        follows = "-m" in rest or any(word.endswith(".py") for word in rest)
        return self.command[place] in _LAUNCHERS and follows

    @property
    def program(self) -> str:
        """The program's name in rows."""
        file = Path(self.command[self.script_place]).name
        return self.name or file.removesuffix(".py").removesuffix(".sh")


def check_start(command: Sequence[str], environment: Mapping[str, str]) -> None:
    """Refuse a command that cannot be started here, or that could not be watched."""
    name = command[0]
    if shutil.which(name, path=environment.get("PATH")) is None:
        if os.path.sep in name and Path(name).is_file():
            raise UsageError(f"{name} is not executable; start it by its program: python {name}")
        raise UsageError(f"the command {name!r} is not found; it is started without a shell")
    if environment.get(AUTOLOAD) == "0":
        raise UsageError(f"{AUTOLOAD}=0 keeps torch from calling bench's start hook; unset it")
    if "RANK" in environment:
        raise UsageError(
            f"bench wrap is itself a rank here (RANK={environment['RANK']}); put the launcher into "
            f"the command: {_IN_COMMAND}; or unset RANK, if no job is there"
        )


# Secrets -----------------------------------------------------------------------------------------

HIDDEN = "***"
_LONG = (
    r"secret|passwor[dt]|passwd|passphrase|credential|token(?!s)|(?:api|access|private)[-_.]?keys?"
)
_SHORT = r"pass|passcode|pwd|auth(?!ors?\b)\w*|bearer|signature|cookie|(?:account|ssh)[-_.]keys?"
_NAME = rf"(?:[\w.-]*(?:{_LONG})|(?:[\w.-]*[-_.])?(?:{_SHORT}))(?:s|[-_.](?:id|key|value|string))?"
"""--api-token and HF_TOKEN are names of secrets; --max-tokens and --tokenizer are not."""
_FLAG = re.compile(rf"--?{_NAME}", re.IGNORECASE)
_GIVEN = re.compile(rf"((?<![\w.-])[-+~]*{_NAME}[\"']?\s*[=:\s]\s*).+", re.IGNORECASE | re.DOTALL)
_ADDRESS = re.compile(r"(?<=://)[^/\s]*@")
_IS_FLAG = re.compile(r"--?[A-Za-z][\w.-]*(=.*)?", re.DOTALL)


def hidden(words: Sequence[str]) -> list[str]:
    """Return the words with the values of what looks like a secret left out."""
    kept: list[str] = []
    is_value = False
    for word in words:
        if is_value and not _IS_FLAG.fullmatch(word):
            kept.append(HIDDEN)
        else:
            kept.append(_ADDRESS.sub(f"{HIDDEN}@", _GIVEN.sub(rf"\g<1>{HIDDEN}", word)))
        is_value = bool(_FLAG.fullmatch(word))
    return kept

"""The flags of `bench run`: each declared once, with its help, its group and how it is read.

The command line makes its options from the fields of `RunRequest`, recipes fill them in, and
`command_words` prints them back. A field that `Config` has under the same name reaches the trial as
it is. Lists are sweeps, their values separated by commas or given several times; None and empty are
not given. Only the form is read here; whether a size or a device is known is for others to say.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from bench.core.errors import UsageError
from bench.core.nouns import Config, Mode, Strategy
from bench.core.units import parse_duration_s

MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How a flag's value is typed, read from what was typed, and written again."""

    given: Any
    """What the command line hands over: str, int, float, bool or list[str]."""
    read: Callable[[Any, str], Any] = lambda value, _flag: value
    """From the given value and the flag's name; `UsageError` where the form is wrong."""
    write: Callable[[Any], Sequence[str]] = lambda value: (str(value),)
    """Values of the flag, which is repeated for each."""
    absent: Any = None
    """What a request has where nothing was given, unless the flag says otherwise."""


def parts(text: str) -> tuple[str, ...]:
    """Return what the commas separate, blanks left out."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def whole_numbers(text: str, flag: str) -> tuple[int, ...]:
    """Return the numbers that the commas separate; `UsageError` where one is none."""
    try:
        return tuple(int(part) for part in parts(text))
    except ValueError:
        raise UsageError(f"{flag} {text!r} needs whole numbers, such as 2 or 1,2,4") from None


def settings_of(texts: Sequence[str], _flag: str) -> dict[str, tuple[str, ...]]:
    """Return the values of each key of --set; `UsageError` where a text is not key=value."""
    settings: dict[str, tuple[str, ...]] = {}
    for text in texts:
        key, equals, values = text.partition("=")
        if not equals or not key.strip() or not parts(values):
            raise UsageError(f"--set {text!r} needs key=value, such as --set filters=16x32x64")
        settings[key.strip()] = parts(values)
    return settings


def split_links(texts: Sequence[str], _flag: str = "--link") -> tuple[str, ...]:
    """Split lists at commas, but keep 'bw=25GB/s,latency=5us' together: a new bw= begins a link."""
    links: list[str] = []
    for part in (part for text in texts for part in parts(text)):
        key = part.partition("=")[0].strip()
        if "=" in part and key != "bw" and links and "=" in links[-1].partition("/")[0]:
            links[-1] += f",{part}"
        else:
            links.append(part)
    return tuple(links)


TEXT, INTEGER = Kind(given=str), Kind(given=int)
NUMBER = Kind(given=float, write=lambda value: (f"{value:.12g}",))
SWITCH = Kind(given=bool, write=lambda _value: (), absent=False)
TEXTS = Kind(
    given=str,
    read=lambda text, _flag: parts(text),
    write=lambda values: (",".join(map(str, values)),),
    absent=(),
)
INTEGERS = dataclasses.replace(TEXTS, read=whole_numbers)
NAMES = Kind(
    given=list[str],
    read=lambda texts, _flag: tuple(part for text in texts for part in text.split(",") if part),
    write=tuple,
    absent=(),
)
LINKS = Kind(given=list[str], read=split_links, write=tuple, absent=())
SETTINGS = Kind(
    given=list[str],
    read=settings_of,
    write=lambda settings: [f"{key}={','.join(values)}" for key, values in settings.items()],
    absent={},
)
DURATION = Kind(
    given=str,
    read=lambda text, flag: parse_duration_s(text, what=flag),
    write=lambda seconds: (f"{seconds:.12g}s",),
)


@dataclass(frozen=True, kw_only=True)
class Flag:
    """One flag as the command line shows it."""

    names: tuple[str, ...]
    kind: Kind
    group: str
    help: str

    @property
    def parameter(self) -> str:
        """Name of the command's parameter, from which that of its environment variable follows."""
        return self.names[0].removeprefix("--").replace("-", "_")


def _flag(group: str, names: str, kind: Kind, text: str, *, default: Any = None) -> Any:
    declared = Flag(names=tuple(names.split()), kind=kind, group=group, help=text)
    absent = kind.absent if default is None else default
    if isinstance(absent, dict):
        return field(default_factory=absent.copy, metadata={"flag": declared})
    return field(default=absent, metadata={"flag": declared})


LAYOUT = "Several devices, and the link between them"
_work = partial(_flag, "What is run")
_device = partial(_flag, "On which device")
_layout = partial(_flag, LAYOUT)
_serve = partial(_flag, "Requests that come by themselves")
_endpoint = partial(_flag, "A server somewhere, in place of --workload")
_effort = partial(_flag, "How often and how long")


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """What `bench run` is asked to do."""

    workloads: tuple[str, ...] = _work(
        "--workload -w",
        NAMES,
        "all, a domain such as medical, everything, a name such as imaging or imaging:train, "
        "a pattern, or a file ./mine.py:train",
    )
    sizes: tuple[str, ...] = _work(
        "--size", TEXTS, "tiny, small, base, large; a comma sweeps; default: largest that fits"
    )
    batches: tuple[int, ...] = _work("--batch", INTEGERS, "samples per step; a comma sweeps")
    cases: tuple[int, ...] = _work("--cases", INTEGERS, "most cases of --data, such as volumes")
    dtypes: tuple[str, ...] = _work(
        "--dtype", TEXTS, "fp32, tf32, bf16, fp16; a comma sweeps; default: device's"
    )
    compile: bool = _work("--compile", SWITCH, "use torch.compile")
    compile_mode: str | None = _work(
        "--compile-mode",
        TEXT,
        "with --compile: reduce-overhead or max-autotune, which use CUDA graphs",
    )
    channels_last: bool = _work("--channels-last", SWITCH, "lay tensors out channels last")
    settings: Mapping[str, tuple[str, ...]] = _work(
        "--set", SETTINGS, "parameter key=value; a comma in the value sweeps"
    )
    data: str | None = _work(
        "--data",
        TEXT,
        "real input, as `bench list workloads NAME` says; or 'resident' to leave the loader out",
    )
    device: str | None = _device(
        "--device", TEXT, "cpu, cuda, cuda:1, npu, ...; default: best there is"
    )
    chip_limit: str | None = _device(
        "--chip-limit",
        TEXT,
        "use less of the device: sms=78,memory=24GB on a GPU, cores=2,memory=8GB on a CPU",
    )
    threads: int | None = _device("--threads", INTEGER, "CPU compute threads")
    workers: int | None = _device("--workers", INTEGER, "loader processes")
    devices: tuple[int, ...] = _layout(
        "--devices",
        INTEGERS,
        "how many, such as 8 or 1,2,8; real ones, or with --link one and the rest virtual",
    )
    parallel: tuple[Strategy, ...] = _layout(
        "--parallel", TEXTS, "ddp, fsdp, tp or pp; a comma sweeps"
    )
    tp: int | None = _layout("--tp", INTEGER, "tensor-parallel ranks")
    dp: int | None = _layout("--dp", INTEGER, "data-parallel ranks")
    pp: int | None = _layout("--pp", INTEGER, "pipeline stages")
    links: tuple[str, ...] = _layout(
        "--link",
        LINKS,
        "modelled link: a preset, bw=25GB/s,latency=5us, a file, or a*8/b*4; a comma sweeps; "
        "`bench list links`",
    )
    mode: Mode | None = _layout(
        "--mode",
        TEXT,
        "real, throttled, emulated or simulated; default: real without --link, else emulated where "
        "the device's timer keeps every row of the sweep, and simulated where it does not",
    )
    bucket_mib: float | None = _layout(
        "--bucket-mib", NUMBER, "MiB of gradients that ddp sends together; default: 25"
    )
    grad_accum: int = _layout(
        "--grad-accum", INTEGER, "micro-batches in one optimizer step", default=1
    )
    schedule: str = _layout(
        "--schedule", TEXT, "pipeline: 1f1b or interleaved-2; default: 1f1b", default="1f1b"
    )
    mitigate: tuple[str, ...] = _layout(
        "--mitigate", TEXTS, "none, bf16, powersgd-2, diloco-64, ...; a comma sweeps"
    )
    contention: str = _layout(
        "--contention",
        TEXT,
        "compute units that communication takes: bracket (none and the link's; the default), none, "
        "or a number",
        default="bracket",
    )
    arrivals: str | None = _serve(
        "--arrivals",
        TEXT,
        "poisson:40/s, uniform:40/s, gamma:40/s:0.5, day:FILE, trace:FILE; auto finds the largest "
        "rate that holds --slo",
    )
    scenario: str | None = _serve(
        "--scenario",
        TEXT,
        "mlperf-single-stream, mlperf-multi-stream, mlperf-offline or mlperf-server: MLPerf's "
        "LoadGen sends the requests and judges",
    )
    slo: str | None = _serve(
        "--slo",
        TEXT,
        "what requests are promised, such as 2s@p99, or of tokens ttft=2s@p99,tpot=200ms@p99",
    )
    max_batch: int = _serve(
        "--max-batch", INTEGER, "requests served together at most; default: 1", default=1
    )
    max_wait_s: float = _serve(
        "--max-wait", DURATION, "how long an incomplete batch waits; default: 0s", default=0.0
    )
    prompt_tokens: str | None = _serve(
        "--prompt-tokens",
        TEXT,
        "lengths of prompts: fixed:N, lognormal:MEDIAN:SIGMA, trace:; default: lognormal:1024:0.5",
    )
    output_tokens: str | None = _serve(
        "--output-tokens", TEXT, "and of their answers; default: lognormal:256:0.5"
    )
    seconds: float | None = _serve(
        "--seconds", NUMBER, "how long requests come; default: 60, and 3 with --profile smoke"
    )
    endpoint: str | None = _endpoint(
        "--endpoint", TEXT, "server of tokens to measure, by its address: http://HOST:8000/v1"
    )
    model: str | None = _endpoint("--model", TEXT, "name of the model there")
    chat: bool = _endpoint("--chat", SWITCH, "ask for chat completions, not completions")
    stall_s: float = _endpoint(
        "--stall", DURATION, "give a request up after so long without an event", default=30.0
    )
    think_s: float = _endpoint(
        "--think",
        DURATION,
        "with --arrivals auto: what a user takes between an answer and the next request",
        default=30.0,
    )
    profile: str = _effort(
        "--profile",
        TEXT,
        "smoke, quick, default or rigorous: 1, 1, 3-6 or 6-10 trials",
        default="default",
    )
    trials: int | None = _effort(
        "--trials", INTEGER, "exactly this many trials of each configuration"
    )
    budget_s: float | None = _effort("--budget", DURATION, "time for the whole run, such as 10m")
    timeout_s: float = _effort(
        "--timeout", DURATION, "longest time for one trial; default: 15m", default=900.0
    )
    seed: int = _effort("--seed", INTEGER, "seed of data, weights and order; default: 0", default=0)
    oom_shrink: bool = _effort("--oom-shrink", SWITCH, "halve the batch when memory runs out")

    @property
    def overrides(self) -> list[dict[str, Any]]:
        """Every combination of --set, --batch and --cases values."""
        swept: dict[str, Sequence[Any]] = dict(self.settings)
        swept |= {"batch": self.batches} if self.batches else {}
        swept |= {"cases": self.cases} if self.cases else {}
        return [dict(zip(swept, one, strict=True)) for one in itertools.product(*swept.values())]

    @property
    def is_served(self) -> bool:
        """Whether requests come by themselves, rather than one step after the other."""
        return self.arrivals is not None or self.scenario is not None


FLAGS: Mapping[str, Flag] = {
    one.name: one.metadata["flag"] for one in dataclasses.fields(RunRequest)
}
"""By the field's name."""
TO_TRIAL: tuple[str, ...] = tuple(
    one.name
    for one in dataclasses.fields(Config)
    if one.name in FLAGS and one.name not in ("data", "device", "chip_limit")
)
"""Flags that a configuration carries to the trial as they were given."""


def read_flags(given: Mapping[str, Any]) -> RunRequest:
    """Build the request from the command's parameters; `UsageError` where a form is wrong."""
    values = {}
    for name, one in FLAGS.items():
        value = given.get(one.parameter)
        if not (value is None or value is False or value == []):
            for text in value if isinstance(value, list) else [value]:
                _check_text(str(text), flag=one.names[0])
            values[name] = one.kind.read(value, one.names[0])
    return RunRequest(**values)


def _check_text(text: str, *, flag: str) -> None:
    """Refuse bytes that are no text, as in a file's name: the plan is kept as JSON."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{flag} {text!r} is not UTF-8 text; rename what it names") from error


def is_given(request: RunRequest, name: str) -> bool:
    """Whether the flag of that field is not at its default."""
    return bool(getattr(request, name) != getattr(_DEFAULT, name))


_DEFAULT = RunRequest()


def command_words(request: RunRequest) -> list[str]:
    """Return the flags of `bench run` that make this request."""
    line: list[str] = []
    for name, one in FLAGS.items():
        if not is_given(request, name):
            continue
        if one.kind is SWITCH:
            line.append(one.names[0])
        for text in one.kind.write(getattr(request, name)):
            line += [one.names[0], text]
    return line

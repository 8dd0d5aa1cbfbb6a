"""A smaller chip within the one at hand, as the user writes it: `sms=78,memory=24GB`.

Only what can be taken away is here: compute units and memory. Bandwidth, caches and clocks stay
those of the whole device, so the result is "this device with 78 SMs" and never the name of another
chip, beside whose projection it is an upper bound for work that memory holds.
"""

from dataclasses import dataclass

from bench.core.errors import UsageError, one_of
from bench.core.units import format_si, parse_bytes

KEYS = ("sms", "cores", "memory")
EXAMPLE = "such as sms=78,memory=24GB on a GPU or cores=2,memory=8GB on a CPU"


@dataclass(frozen=True, kw_only=True)
class ChipLimit:
    """What is left of a device; None leaves a part whole."""

    sms: int | None = None
    """Streaming multiprocessors of a GPU."""
    cores: int | None = None
    """Cores of a CPU."""
    memory_bytes: int | None = None

    @property
    def name(self) -> str:
        """Text that `parse_chip_limit` reads back to an equal limit."""
        memory = self.memory_bytes and f"{self.memory_bytes}B"
        parts = {"sms": self.sms, "cores": self.cores, "memory": memory}
        return ",".join(f"{key}={value}" for key, value in parts.items() if value)

    def label(self, *, sms_granted: int | None = None) -> str:
        """What rows and tables call the device: 'this device with 72 SMs (78 asked), 24.0 GB'."""
        parts = []
        if self.sms is not None:
            granted = self.sms if sms_granted is None else sms_granted
            asked = "" if granted == self.sms else f" ({self.sms} asked)"
            parts.append(f"{granted} SMs{asked}")
        if self.cores is not None:
            parts.append(f"{self.cores} cores")
        if self.memory_bytes is not None:
            parts.append(f"{format_si(self.memory_bytes, 'B')} of memory")
        return f"this device with {', '.join(parts)}"


def parse_chip_limit(text: str) -> ChipLimit:
    """Read a limit; `UsageError` says what is wrong with it."""
    found: dict[str, int] = {}
    for part in text.split(","):
        key, equals, value = (word.strip() for word in part.partition("="))
        if not equals or not value:
            raise UsageError(f"--chip-limit {text[:80]!r} needs key=value, {EXAMPLE}")
        if key not in KEYS:
            raise one_of("--chip-limit", key, list(KEYS), hint=EXAMPLE)
        if key in found:
            raise UsageError(f"--chip-limit {text[:80]!r} names {key} twice")
        if key == "memory":
            found[key] = parse_bytes(value, what="memory")
        elif value.isascii() and value.isdigit() and 0 < int(value[:9]) < 10**6:
            found[key] = int(value)
        else:
            raise UsageError(
                f"--chip-limit: {key} {value[:20]!r} is not a whole number over 0, {EXAMPLE}"
            )
    if "sms" in found and "cores" in found:
        raise UsageError("--chip-limit: sms are a GPU's, cores a CPU's; give one of them")
    memory_bytes = found.pop("memory", None)
    if memory_bytes == 0:
        raise UsageError("--chip-limit: memory must be over 0")
    return ChipLimit(memory_bytes=memory_bytes, **found)


def check_device(limit: ChipLimit, *, device_type: str) -> None:
    """Refuse what this type of device cannot be cut down by, before anything runs."""
    if limit.sms is not None and device_type != "cuda":
        raise UsageError(f"--chip-limit sms needs a CUDA device, not {device_type}; {EXAMPLE}")
    if limit.cores is not None and device_type != "cpu":
        raise UsageError(f"--chip-limit cores needs the CPU, not {device_type}; {EXAMPLE}")
    if device_type not in ("cpu", "cuda"):
        raise UsageError(f"--chip-limit works on cuda and cpu, not on {device_type}")

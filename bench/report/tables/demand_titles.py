"""What a phase or a setting is called in the tables and panels of `bench gap`.

A title has what is always told (size, precision, mode, layout) and, of all else, only that in which
two settings of the same table differ: no two different lines look alike, and no line is longer than
it must be.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench.analysis.demand import Demand, Setting
from bench.report.tables.cells import AnyCell, Cell, text_of
from bench.report.tables.run_table import params_of, remedies_of
from bench.results.schema import Row

_FACTS = {"channels_last": "channels-last", "data": "data", "workload_version": "version"}
"""Facts told only where they differ, and in which words."""
_MAX_VALUE = 24


def title(demand: Demand, *, phase: str | None = None, shown: Sequence[str] = ()) -> AnyCell:
    """Workload with what it was run with; `shown` is what `differing` found for the table."""
    return _titled(phase or demand.name, demand.setting, shown=shown)


def setting_title(setting: Setting, *, shown: Sequence[str] = ()) -> AnyCell:
    """The same of a workload without its phase."""
    return _titled(setting.workload, setting, shown=shown)


def full_title(demand: Demand, *, phase: str | None = None, shown: Sequence[str] = ()) -> str:
    """Title with the batch, in which many demands differ."""
    others = [name for name in shown if name != "batch"]
    told = text_of(title(demand, phase=phase, shown=others))
    return told if demand.batch is None else f"{told} b{demand.batch}"


def _titled(name: str, setting: Setting, *, shown: Sequence[str]) -> AnyCell:
    text = " ".join([name, *_words(setting, shown=shown)])
    mode = setting.fact("mode")
    if mode in ("real", ""):
        return text
    return Cell(text=text, mode=f"{mode} {setting.fact('link')}".rstrip())


def differing(settings: Iterable[Setting]) -> tuple[str, ...]:
    """Names of parameters and facts in which two settings of one workload and size differ."""
    seen: dict[tuple[str, str, str], set[str]] = {}
    for setting in dict.fromkeys(settings):
        told = {name: setting.fact(name) for name in _FACTS}
        told |= {name: str(value) for name, value in _params(setting).items()}
        for name, value in told.items():
            seen.setdefault((setting.workload, setting.fact("size"), name), set()).add(value)
    return tuple(dict.fromkeys(name for (_, _, name), values in seen.items() if len(values) > 1))


def _params(setting: Setting) -> dict[str, object]:
    return params_of({"params_json": setting.fact("params_json")})


def _words(setting: Setting, *, shown: Sequence[str]) -> list[str]:
    words = [setting.fact("size"), setting.fact("dtype")]
    if setting.fact("compile").lower() == "true":
        words += ["compiled", fact] if (fact := setting.fact("compile_mode")) else ["compiled"]
    words += _told(setting, shown=shown)
    count, layout = setting.fact("device_count"), setting.fact("layout")
    words += [f"x{count}"] if count not in ("", "1") else []
    words += [setting.fact("parallel"), layout if " x " in layout else "", _remedies(setting)]
    return [word for word in words if word]


def _told(setting: Setting, *, shown: Sequence[str]) -> list[str]:
    params = _params(setting)
    return [
        _fact(name, value=setting.fact(name))
        if name in _FACTS
        else _param(name, value=str(params.get(name, "unset")))
        for name in shown
    ]


def _fact(name: str, *, value: str) -> str:
    if value.lower() in ("true", "false"):
        return _FACTS[name] if value.lower() == "true" else ""
    return f"{_FACTS[name]} {value[:_MAX_VALUE] or 'unknown'}"


def _param(name: str, *, value: str) -> str:
    return f"b{value}" if name == "batch" else f"{name}={value[:_MAX_VALUE]}"


def _remedies(setting: Setting) -> str:
    """What is done about a narrow link, as `run_table.remedies_of` words it."""
    row: Row = {name: setting.fact(name) for name in ("mitigation", "schedule")}
    for name in ("grad_accum", "bucket_bytes"):
        row[name] = int(float(setting.fact(name))) if setting.fact(name) else None
    return remedies_of(row)

"""What the rows say: what ran where and how far it can be trusted, how fast it was, its origin.

Counts rest on every row, whatever is shown of them; reasons are given in the words of the schema.
A section of figures is a table of the configurations shown and the panels drawn from the same rows;
one without a figure to show is left out.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from bench.analysis.trials.configuration import Trials, is_virtual, number
from bench.core.units import counted
from bench.report.page.content import PageFacts, Part, Prose, Section, section
from bench.report.page.evidence import Evidence, Source
from bench.report.plots import plots_speed
from bench.report.tables import cells
from bench.report.tables.cells import AnyCell, Cell
from bench.report.tables.grid import Grid
from bench.report.tables.run_table import COLUMNS, Columns, by_reason, configuration_grid
from bench.results.schema import REASONS, STATUSES, USABLE, Row

MAX_DEVICES = 50
MAX_UNUSABLE = 100
MAX_FACTS = 20
_PLACE: Columns = {"device": lambda one: one.device, "file": lambda one: one.file}


def overview(evidence: Evidence) -> Section:
    """Files and devices."""
    return section("runs", "What was run where", _files(evidence), _devices(evidence.rows))


def _files(evidence: Evidence) -> Grid:
    def started(source: Source) -> str:
        return min(_distinct(source.rows, "started_utc"), default="")[:16].replace("T", " ")

    return Grid.of(
        evidence.sources,
        {
            "file": lambda source: source.label,
            "run": lambda source: _few(source.rows, "run_id"),
            "started (UTC)": started,
            "device": lambda source: _few(source.rows, "device_name", "device"),
            "workloads": lambda source: _few(source.rows, "workload", limit=8),
            "trials": lambda source: cells.quantity(len(source.rows)),
            "usable": lambda source: cells.quantity(
                sum(row["status"] in USABLE for row in source.rows)
            ),
            "bench": lambda source: _few(source.rows, "bench_version"),
            "commit": lambda source: _few(source.rows, "git_commit", end=12),
        },
        title="Files",
    )


def _few(rows: Sequence[Row], *columns: str, limit: int = 3, end: int | None = None) -> str:
    """The first of all values, and how many more there are."""
    found = list(dict.fromkeys(text[:end] for text in _distinct(rows, *columns)))
    more = f" and {len(found) - limit} more" if len(found) > limit else ""
    return ", ".join(found[:limit]) + more


def _distinct(rows: Sequence[Row], *columns: str) -> list[str]:
    """Values of the first of these columns that is not blank in a row, each once."""
    return list(dict.fromkeys(filter(None, map(_text(*columns), rows))))


def _text(*columns: str) -> Callable[[Row], str]:
    return lambda row: next((str(row[name]) for name in columns if row.get(name)), "")


def _devices(found: Sequence[Row]) -> Grid:
    columns: dict[str, Callable[[Row], AnyCell]] = {
        "device": _text("device_name"),
        "stack": _text("device_stack", "device_type"),
        "memory": lambda row: cells.quantity(number(row, "device_memory_bytes"), cells.num_bytes),
        "chip": _text("chip"),
        "power limit": lambda row: cells.quantity(number(row, "power_limit_w"), cells.watts),
        "driver": _text("driver_version"),
        "torch": _text("torch_version"),
        "threads": lambda row: cells.quantity(number(row, "threads")),
        "processor": _text("cpu_model"),
        "system": _text("os_version"),
        "host": lambda row: str(row.get("host_hash") or "")[:8],
    }
    grid = Grid.of([row for row in found if row.get("device_name")], columns, title="Devices")
    kinds = list(dict.fromkeys(map(tuple, grid.rows)))
    notes = _hidden(len(kinds) - MAX_DEVICES, "environments")
    return replace(grid, rows=kinds[:MAX_DEVICES], notes=notes)


def _hidden(num: int, what: str) -> tuple[str, ...]:
    return (f"{num} further {what} are not shown",) if num > 0 else ()


def validity(evidence: Evidence) -> Section:
    """Statuses, reasons in words, and configurations that nothing can be said about."""
    found = evidence.rows
    counts = Counter(str(row["status"]) for row in found)
    columns: dict[str, Callable[[str], AnyCell]] = {
        "status": lambda status: Cell(word=status),
        "trials": lambda status: cells.quantity(counts[status]),
        "share": lambda status: cells.share(counts[status] / len(found)),
        "meaning": lambda status: STATUSES[status].replace("`", ""),
    }
    statuses = [status for status in STATUSES if status in counts]
    ended = Grid.of(statuses, columns, title="Status of trials")
    reasons, without = _reasons(found), Prose(lines=("No trial has a reservation.",))
    shown = reasons if reasons.rows else without
    return section("validity", "How far it can be trusted", ended, shown, _unusable(evidence))


def _reasons(found: Sequence[Row]) -> Grid:
    rows_of = by_reason(found)
    columns: dict[str, Callable[[str], AnyCell]] = {
        "reason": str,
        "trials": lambda code: cells.quantity(len(rows_of[code])),
        "what it means, and what to do": lambda code: REASONS.get(code, "unknown reason"),
        "workloads": lambda code: ", ".join(_distinct(rows_of[code], "workload")[:8]),
        "message of one": lambda code: next(iter(_distinct(rows_of[code], "detail")), ""),
    }
    return Grid.of(rows_of, columns, title="Reasons")


def _unusable(evidence: Evidence) -> Grid:
    lost = [one for one in evidence.configurations if not one.used]
    return Grid.of(
        lost[:MAX_UNUSABLE],
        {
            "configuration": lambda one: cells.title_cell(one.first),
            "device": lambda one: one.one_device,
            "status": lambda one: ", ".join(_distinct(one.rows, "status")),
            "reasons": lambda one: ", ".join(_distinct(one.rows, "reasons")),
            "message": lambda one: next(iter(_distinct(one.rows, "detail")), ""),
        },
        title="Without any usable trial",
        notes=_hidden(len(lost) - MAX_UNUSABLE, "configurations"),
    )


def results(evidence: Evidence) -> Section | None:
    """The table of configurations, with throughput drawn by device; absent where all are served."""
    if not evidence.stepped:
        return None
    plots = plots_speed.throughput_plots(evidence.stepped)
    without = Prose(lines=("No usable trial has a throughput.",))
    grid = _grid(evidence, COLUMNS, title="All configurations, mean over usable trials")
    return section("throughput", "Throughput by device", plots or without, grid)


def _grid(
    evidence: Evidence,
    columns: Columns,
    *,
    title: str = "",
    note: str = "",
    has_any: Sequence[str] = (),
) -> Grid:
    """One line per configuration that has any of the columns named."""
    shown = [one for one in evidence.stepped if not has_any or any(map(one.values, has_any))]
    hidden = f"{counted(evidence.num_hidden, 'configuration')} not shown; the CSV has all"
    notes = (note, hidden if evidence.num_hidden else "")
    grid = configuration_grid(shown, columns={**_PLACE, **columns})
    return replace(grid, title=title, notes=tuple(filter(None, notes)))


def _mean(column: str, scale: cells.Scale = cells.bare) -> Callable[[Trials], AnyCell]:
    """Mean over usable trials; milliseconds are made seconds."""
    factor = 1e-3 if column.endswith("_ms") else 1.0

    def cell(one: Trials) -> AnyCell:
        value = one.mean(column)
        return cells.quantity(None if value is None else value * factor, scale)

    return cell


def _is_steady(one: Trials) -> str:
    found = [row["warmup_converged"] for row in one.used if "warmup_converged" in row]
    known = [bool(value) for value in found if value is not None]
    return "" if not known else "yes" if all(known) else f"{sum(known)} of {len(known)}"


def latency(evidence: Evidence) -> Section | None:
    """Latency percentiles, and how step times are spread."""
    columns: Columns = {
        "p50": _mean("lat_p50_ms", cells.seconds),
        "p90": _mean("lat_p90_ms", cells.seconds),
        "p99": _mean("lat_p99_ms", cells.seconds),
        "first token": _mean("ttft_ms", cells.seconds),
        "per token": _mean("tpot_ms", cells.seconds),
        "prefill": _mean("prefill_tok_per_s", cells.of("token/s")),
        "decode": _mean("decode_tok_per_s", cells.of("token/s")),
        "data wait": _mean("data_wait_frac", cells.percent),
    }
    note = "p90 and p99 are upper bounds with 99 % confidence, blank where too few steps ran"
    wanted = ("lat_p50_ms", "ttft_ms", "tpot_ms", "step_median_ms")
    grid = _grid(evidence, columns, note=note, has_any=wanted)
    plots = plots_speed.step_plots(evidence.stepped)
    return section("latency", "Latency and steps", plots, grid) if grid.rows and plots else None


def steps(evidence: Evidence) -> Section | None:
    """Warm-up and step-time traces from the samples, and what starting costs."""
    samples, notes = evidence.samples()
    labels = [source.label for source in evidence.sources]
    found = plots_speed.steps_of(evidence.stepped, samples, labels=labels)
    columns: Columns = {
        "import": _mean("import_s", cells.seconds),
        "build": _mean("build_s", cells.seconds),
        "to device": _mean("transfer_s", cells.seconds),
        "first step": _mean("first_step_s", cells.seconds),
        "compile": _mean("compile_s", cells.seconds),
        "warm-up": _mean("warmup_s", cells.seconds),
        "warm-up steps": _mean("warmup_steps"),
        "steady": _is_steady,
    }
    wanted = ("warmup_s", "warmup_steps", "first_step_s", "build_s")
    grid = _grid(evidence, columns, title="What starting costs", has_any=wanted)
    drawn = (plots_speed.trace_plots(found), plots_speed.spread_plots(found))
    if not grid.rows and not any(drawn):
        return None
    read = Prose(lines=tuple(notes), is_list=True)
    return section("steps", "Warm-up and every step", *drawn, grid, read)


def energy(evidence: Evidence) -> Section | None:
    """Energy per item; absent where nothing measured it."""
    alone = [one for one in evidence.stepped if not is_virtual(one.first)]
    plots = plots_speed.energy_plots(alone)
    if plots is None:
        return None
    columns: Columns = {
        "energy/item [95 %]": _energy,
        "mean power": _mean("power_mean_w", cells.watts),
        "idle power": _mean("idle_power_w", cells.watts),
        "power limit": _mean("power_limit_w", cells.watts),
        "hottest": _mean("temp_max_c", cells.plain_unit("C")),
        "throttled": _mean("throttle_frac", cells.percent),
        "covers": lambda one: one.word("energy_scope"),
        "source": lambda one: one.word("energy_source"),
    }
    note = "idle power is included; figures of different scope (gpu, package, soc) do not compare"
    grid = _grid(evidence, columns, note=note, has_any=("energy_per_item_j",))
    return section("energy", "Energy", plots, grid)


def _energy(one: Trials) -> AnyCell:
    joules = None if is_virtual(one.first) else one.estimate("energy_per_item_j")
    return cells.figure(joules, cells.of("J"))


def provenance(evidence: Evidence) -> Section:
    """Files by content, environments and requests in full."""
    columns: dict[str, Callable[[Source], AnyCell]] = {
        "file": lambda source: source.label,
        "rows": lambda source: cells.quantity(len(source.rows)),
        "SHA-256 of the file": lambda source: source.sha256,
        "environment id": lambda source: _few(source.rows, "env_id", end=16),
    }
    parts: list[Part] = [Grid.of(evidence.sources, columns)]
    parts.append(Prose(lines=evidence.notes, is_list=True))
    for source in evidence.sources[:MAX_FACTS]:
        label, beside = source.label, source.sidecar
        if beside is None:
            parts.append(Prose(lines=(f"{label}: no environment file lies beside it.",)))
        else:
            parts.append(PageFacts(title=f"Environment of {label}", facts=beside.environment))
            parts.append(PageFacts(title=f"Request of {label}", facts=beside.request))
    hidden = _hidden(len(evidence.sources) - MAX_FACTS, "files' environments")
    return section("provenance", "Where it comes from", *parts, Prose(lines=hidden))

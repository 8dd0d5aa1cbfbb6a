"""Any valid row, for hypothesis."""

import json

from hypothesis import strategies as st

from bench.results.csvio import canonical_json
from bench.results.schema import BY_NAME, NAMES, SCHEMA_VERSION


def storable(text: str) -> str:
    """What becomes of a text that a UTF-8 file cannot hold."""
    return "".join("\ufffd" if c == "\0" or "\ud800" <= c <= "\udfff" else c for c in text)


texts = st.one_of(st.text(alphabet="=+-@\t\r\n'\",; \0a\ud800é", max_size=12), st.text(max_size=40))
json_texts = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
).map(lambda value: canonical_json(json.dumps(value)))

CELLS = {
    "str": texts.map(lambda text: storable(text) or None),
    "utc": st.datetimes().map(lambda moment: moment.isoformat(timespec="seconds") + "Z"),
    "json": json_texts,
    "bool": st.booleans(),
    "int": st.integers(-(2**63) + 1, 2**63 - 1),
    "float": st.floats(allow_nan=False, allow_infinity=False),
}


GIVEN = {
    "schema_version": st.just(SCHEMA_VERSION),
    "run_id": st.just("r1"),
    "trial": st.integers(0, 99),
    "status": st.sampled_from(["OK", "WARN", "INVALID", "FAILED", "SKIPPED"]),
    "reasons": st.sampled_from([None, "drift", "drift;steal"]),
    **dict.fromkeys(("workload", "config_hash", "device"), st.text("ab,'=", min_size=1)),
}
# A dozen columns of every kind vary; hundreds of draws per row would only slow hypothesis down.
VARIED = ("detail", "started_utc", "params_json", "compile", "seed", "window_s", "lat_p50_ms")
rows = st.fixed_dictionaries(
    GIVEN | {name: st.none() | CELLS[BY_NAME[name].kind] for name in VARIED}
).map(lambda cells: {name: cells.get(name) for name in NAMES})

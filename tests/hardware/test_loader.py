"""Reading data files strictly: nothing wrong passes, and nothing but a DataError comes out."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import to_builtins

from bench import discovery
from bench.core.errors import DataError
from bench.hardware.chips import Catalogue
from bench.hardware.loader import MAX_BYTES, decode, parse_document, read_document
from bench.hardware.operators import Mix, Operators, load_mixes

HEAD = "sources:\n  here: {title: A page, url: https://example.org}\n"
CHIP = """
chips:
- id: one
  name: One
  vendor: someone
  kind: gpu
  form_factor: pcie
  release_year: 2020
  confidence: high
  torch_devices: 1
  link: {topology: none}
  sources: [here]
systems: []
"""


def load(text: str) -> str:
    return parse_document(text, into=Catalogue, what="chips.yaml").chips[0].id


def changed(old: str, new: str) -> str:
    assert CHIP.count(old) == 1
    return HEAD + CHIP.replace(old, new)


def test_a_minimal_row_loads_once_and_leaves_the_rest_unknown() -> None:
    chip = parse_document(HEAD + CHIP, into=Catalogue, what="chips.yaml").chips[0].chip()
    assert (chip.memory_bytes, chip.tdp_w, dict(chip.peak_per_s)) == (None, None, {})
    assert "process_nm" not in chip.facts
    row = CHIP[CHIP.index("- id") : CHIP.index("systems")]
    with pytest.raises(DataError, match="'one' stands twice"):
        load(HEAD + CHIP.replace("systems", f"{row}systems"))


ADDED_KEYS = [
    ("colour: red", "one|'colour'; known: "),
    ("tdp_w: -5", "tdp_w: expected a number >= 0"),
    ("tdp_w: .nan", "one|tdp_w|found nan"),
    ("tdp_w: true", "one|tdp_w|number"),
    ("dense_per_s: {fp12: 1}", "fp12"),
    ("memory: [1]", "one|memory: expected a mapping"),
    ("vendor: b", "vendor|twice"),
    ("derates: {p2p: {fraction: 1.2, source: here}}", "one|fraction"),
    ("derates: {luck: {fraction: 0.5, source: here}}", "one|luck"),
    ("reaches: {gemm: {low: 0, high: 1, basis: kin, sources: [here]}}", "one|gemm|low"),
    ("reaches: {gemm: {low: 1, high: 1, basis: hope, sources: [here]}}", "one|basis|hope"),
    ("reaches: {gemm: {low: 1, high: 1, basis: kin, sources: [there]}}", "reaches|gemm|there"),
]
CHANGED_ROWS = [
    ("  vendor: someone\n", "", "one|vendor|missing"),
    ("vendor: someone", "vendor: 7", "one|vendor: expected text, found 7"),
    ("vendor: someone", "vendor:", "one|vendor|empty"),
    ("release_year: 2020", "release_year: 2020.5", "release_year|whole"),
    ("kind: gpu", "kind: toaster", "one|kind: 'toaster' is not one of|gpu"),
    ("[here]", "[there]", "one|sources|there"),
    ("[here]", "[]", "one|sources|a list"),
    *[("[here]", f"[here]\n  {added}", words) for added, words in ADDED_KEYS],
]


@pytest.mark.parametrize(("old", "new", "words"), CHANGED_ROWS)
def test_a_wrong_row_is_refused_with_its_name_and_key(old: str, new: str, words: str) -> None:
    with pytest.raises(DataError) as caught:
        load(changed(old, new))
    message = str(caught.value)
    assert "\n" not in message
    for word in ["chips.yaml", *words.split("|")]:
        assert word in message


HOSTILE = [
    "a: &x [1, 1]\nb: [*x, *x]", "a: &x 1", "a: !!float ''", "a: 0x_",
    "a: !!python/object/apply:os.getcwd []", "a: " + "[" * 50 + "]" * 50, "[" * 100_000,
    "a: " + "9" * 5000, "a: 2001-13-45", "? [1, 2]\n: 3", "a: 1\na: 2", "- 1", "", "\x00", "a: 'x",
    "x: " + "y" * MAX_BYTES,
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_documents_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(DataError) as caught:
        load(text)
    assert "\n" not in str(caught.value)


def test_a_missing_or_binary_file_is_a_data_error(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    for name in ("nowhere", "binary"):
        with pytest.raises(DataError, match=name):
            read_document(tmp_path / f"{name}.yaml", into=Catalogue)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=8,
)
keys = st.sampled_from(
    ["id", "name", "dense_per_s", "memory", "link", "derates", "reaches", "tdp_w", "x"]
)
texts = st.text(alphabet=st.sampled_from("abz01:-[]{}&*!|>'\"#,%@`\n\t .?~_"), max_size=40)


@settings(max_examples=150)
@given(row=st.dictionaries(keys | st.integers(), values, max_size=8), text=texts)
def test_no_row_or_text_raises_anything_but_a_data_error(row: dict[Any, Any], text: str) -> None:
    document = {"sources": {"here": {"title": "A"}}, "chips": [row], "systems": []}
    for tried in (yaml.safe_dump(document), text):
        with pytest.raises(DataError):
            load(tried)


@pytest.mark.parametrize("mix", load_mixes(), ids=lambda mix: mix.id)
def test_matrix_flops_are_those_of_the_workload(mix: Mix) -> None:
    found = discovery.load(mix.workload)
    workload = discovery.instance(found, size=mix.size, overrides={})
    phase = found.phase(mix.phase)
    per_item = workload.flops_per_item(phase)
    assert per_item is not None
    counted = sum(one.flops for one in mix.operators if one.is_matrix)
    # A flash-attention backward computes its scores again, which the formula leaves out.
    assert counted == pytest.approx(per_item * workload.items(phase, None), rel=0.04)
    assert mix.parameters == workload.num_parameters()
    assert mix.batch == workload.batch_size(phase)
    for one in mix.operators:  # every class moves something, and fusing never adds
        assert one.calls > 0 and one.bytes > 0.0
        assert 0.0 <= one.least_bytes <= one.bytes
        assert one.time_s is None, "a mix has shapes, not times"
    assert ("optimizer" in {one.kind for one in mix.operators}) == (mix.phase == "train")


def test_decode_is_held_by_memory_and_training_is_not() -> None:
    mixes = {mix.id: mix for mix in load_mixes()}
    per_byte = {}
    for name in ("llm-train-large", "llm-decode-large"):
        matrix = [one for one in mixes[name].operators if one.is_matrix]
        per_byte[name] = sum(one.flops for one in matrix) / sum(one.bytes for one in matrix)
    assert per_byte["llm-decode-large"] < 20 < 200 < per_byte["llm-train-large"]


def test_operators_read_back_what_is_written_and_impossible_ones_are_refused() -> None:
    written = load_mixes()[0].operators
    assert decode(to_builtins(written), into=tuple[Operators, ...], what="test") == written
    good = to_builtins(written[0])
    changes = [("kind", "magic"), ("flops", -1.0), ("bytes", float("nan")), ("calls", "many")]
    for key, value in [*changes, ("time_s", float("inf"))]:
        with pytest.raises(DataError, match=f"here: {key}"):
            decode({**good, key: value}, into=Operators, what="here")

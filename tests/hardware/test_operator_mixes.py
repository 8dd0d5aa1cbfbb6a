"""The shipped operator mixes against the formulas of the workloads they were counted from."""

import pytest
from msgspec import to_builtins

from bench import discovery
from bench.core.errors import DataError
from bench.hardware.loader import decode
from bench.hardware.operators import Mix, Operators, load_mixes


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

"""What every domain's net has to pass: its memory estimate, and each phase on a foreign device.

Its parameters and FLOPs are held in `test_every_workload`, two ranks against one device in
`tests/parallel/test_spread_on_real_ranks`, both for whatever is shipped. Write what one workload
needs besides tiny into `MORE`.
"""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import discovery
from bench.core.errors import DataError, UsageError
from bench.measure.filled_batches import check_filled, words_of_data
from tests.devices.test_simdev_run import assert_right, run
from tests.workloads.steps_of_workloads import LiveBytes, generated_batch, skip_without_libraries

pytest_plugins = ["tests.simdev.fixture"]

ELSEWHERE = ("align", "sleep", "tabular", "llm")
"""Their estimates hold what several resident batches keep, and are tested with what is theirs."""
NAMES = [name for name in discovery.names() if name not in ELSEWHERE]
MORE: dict[str, dict[str, Any]] = {
    "imaging, many volumes": {"cases": 64},
    "imaging, small volumes": {"volume": (20, 20, 12), "channels": 3},
    "genomics, many ids": {"kmer": 6, "vocab": 4105, "batch": 4, "is_rotary": False},
    "speech, many ids": {"vocab": 5000, "text_positions": 64, "text_tokens": 64, "batch": 2},
    "speech, many bins": {"mel_bins": 80},
    "speech, long": {"seconds": 8, "hidden": 128, "intermediate": 128, "batch": 2},
    "genomics, deep": {"hidden": 128, "layers": 4, "batch": 4, "is_tied": True},
    "driving, wide": {"batch": 2, "classes": 3, "grid": (48, 64), "width": 32},
    "driving, many points": {"batch": 2, "grid": (64, 64), "pillars": 2000, "points": 16},
    "molecules, few neighbours": {"atoms": 20, "neighbours": 3, "layers": 3, "radial": 40},
    "molecules, energy alone": {"forces": False, "hidden": 64},
    "face, many identities": {"identities": 5000, "gallery": 9000},
    "surveillance, as R18 is": {"widths": (64, 128, 256, 512), "stem": 64, "hidden": 256,
                                "feedforward": 1024, "expansion": 0.5, "batch": 2},
    "surveillance, as R50 is": {"block": "bottleneck", "widths": (64, 128, 256, 512), "stem": 32,
                                "frozen_norms": True, "denoising": 20, "batch": 2},
    "video, wide": {"head_dim": 48, "feedforward": 384, "layers": 3, "latent": (5, 16, 16),
                    "text_tokens": 32, "text_dim": 64, "batch": 2},
    "video, to pixels": {"decode": True, "batch": 2},
    "video, an image to pixels": {"decode": True, "batch": 2, "latent": (1, 8, 8),
                                  "decoder_width": 16},
    "pathology, gated": {"hidden": 64, "heads": 4, "registers": 4, "is_gated": True, "bag": 6},
    "pathology, finished encoder": {"train_encoder": False},
}  # fmt: skip
"""Field values over those of tiny, by a name that begins with the workload's."""
CASES = {**{name: {} for name in NAMES}, **MORE}
STEPS = [
    (case, phase.name)
    for case in CASES
    for phase in discovery.load(case.partition(",")[0]).cls.phases
]


def workload_of(case: str) -> Any:
    """The workload of a case at tiny; skipped with the line that installs what it lacks."""
    skip_without_libraries(case)
    found = discovery.load(case.partition(",")[0])
    return found.cls(**{**found.cls.sizes["tiny"], **CASES[case]})


@pytest.mark.parametrize(("case", "phase_name"), STEPS)
def test_a_memory_estimate_covers_live_storages_by_at_most_60_percent(
    case: str, phase_name: str
) -> None:
    workload = workload_of(case)
    (phase,) = (one for one in workload.phases if one.name == phase_name)
    torch.manual_seed(0)
    batch = generated_batch(workload, phase)
    # All that the harness keeps on the device, in training with --data resident.
    num_batches = len(workload.dataset(phase, data=None, seed=0)) // workload.batch_size(phase)
    num_batches = min(num_batches, workload.resident_batches(phase))
    kept = [batch, *(copy.deepcopy(batch) for _ in range(num_batches - 1))]
    net = workload.build_net().train(phase.is_training)
    with LiveBytes(net, kept) as live:
        if phase.is_training:
            optimizer = workload.optimizer(net)
            for _ in range(2):  # the second has the optimizer's state
                workload.loss(net, batch).backward()
                assert all(p.grad is not None for p in net.parameters() if p.requires_grad)
                optimizer.step()
                optimizer.zero_grad()
        else:
            with torch.inference_mode():
                getattr(workload, phase_name)(net, workload.prepare(phase, net, batch))
    assert 1.0 <= workload.memory_bytes(phase, dtype="fp32") / live.peak_bytes <= 1.6


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name != "imaging"])
def test_every_phase_runs_on_a_device_that_nobody_told_us_of(
    simdev_env: Any, tmp_path: Path, name: str
) -> None:
    workload = workload_of(name)
    code, rows, err = run(name, env=simdev_env, out=tmp_path)
    assert code == 0, err
    assert {row["workload"] for row in rows} == {f"{name}-{one.name}" for one in workload.phases}
    for row in rows:
        assert_right(row)


def test_a_batch_that_is_not_filled_names_the_flag_that_takes_less() -> None:
    for name, phase_name, number, ways in (
        ("speech", "train", 5, "give more, or --batch 5"),
        ("surveillance", "infer", 3, "give more, or --set cameras=3"),
        ("face", "train", 1, "give more"),  # batch norm needs two
        ("speech", "encode", 0, "give more"),
    ):
        found = discovery.load(name)
        tiny = found.cls(**found.cls.sizes["tiny"])
        with pytest.raises(DataError, match=f"^here: {number} samples for .*; {ways}$"):
            check_filled(tiny, found.phase(phase_name), number=number, source="here")
    full = found.phase("encode")
    check_filled(tiny, full, number=tiny.batch_size(full), source="here")


def test_what_an_authors_method_says_of_data_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    found = discovery.load("llm")
    monkeypatch.setattr(found.cls, "data_used", lambda *_: "all of it")
    with pytest.raises(UsageError, match="data_used.. answers str; it must be a UsedData"):
        words_of_data(found.cls(), found.phase("train"), data=Path("text"))

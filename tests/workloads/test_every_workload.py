"""What holds for every shipped workload: formulas equal counts, parameters are checked, no torch.

The formulas are held against torch's own counts: parameters of the net, FLOPs of a step.
"""

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bench import discovery
from bench.core.errors import UsageError
from bench.core.nouns import Dtype
from bench.measure.engine.correctness import check_output
from bench.workload import Phase
from tests.measure.trial_requests import request_of
from tests.workloads.steps_of_workloads import generated_batch, skip_without_libraries, train
from workloads import align, imaging, sleep
from workloads._imaging.phantom import write
from workloads.align import GAP, MATCH, MISMATCH

NAMES = discovery.names()


def tiny(name: str, **changed: Any) -> Any:
    cls = discovery.load(name).cls
    return cls(**{**cls.sizes["tiny"], **changed})


UNTIED = tiny("llm", batch=2, layers=3, hidden=96, heads=6, kv_heads=3, intermediate=160,
               vocab=300, is_tied=False, sequence_tokens=48, prompt_tokens=40,
               new_tokens=5)  # fmt: skip
NET = {"filters": (4, 6, 8), "patch": (16, 16, 8), "volume": (16, 20, 12), "cases": 1}
DEEP = {"filters": (4, 8, 8, 12, 16), "patch": (32, 16, 16), "volume": (32, 40, 20), "cases": 1}
FACE = {"depths": (2, 1, 2, 1), "widths": (8, 16, 24, 32), "pixels": 45, "embedding": 32,
        "identities": 50, "gallery": 300, "batch": 4, "sample_rate": 0.3}  # fmt: skip
DETECTOR = {"block": "bottleneck", "widths": (32, 48, 64, 96), "depths": (1, 2, 1, 2), "stem": 12,
            "hidden": 32, "feedforward": 48, "expansion": 0.5, "decoder_layers": 3, "queries": 10,
            "denoising": 7, "pixels": 96, "classes": 5, "objects": 1, "batch": 2, "cameras": 2,
            "frozen_norms": True}  # fmt: skip
GATED = {"hidden": 64, "heads": 4, "registers": 4, "is_gated": True, "classes": 3, "batch": 2,
         "bag": 3, "slide_tiles": 5, "tile_batch": 2}  # fmt: skip
CLIPS = {"heads": 3, "head_dim": 32, "layers": 3, "feedforward": 300, "latent": (2, 12, 16),
         "text_tokens": 7, "text_dim": 40, "channels": 6, "batch": 2,
         "guidance": False}  # fmt: skip
CASES = {name: tiny(name) for name in NAMES} | {
    "genomics, learned positions, tied": tiny(
        "genomics",
        hidden=96,
        heads=3,
        layers=3,
        kmer=3,
        vocab=80,
        window_tokens=24,
        batch=3,
        is_tied=True,
        is_rotary=False,
    ),
    "imaging": tiny("imaging", **NET),
    "imaging, deep supervision": imaging.Workload(**DEEP, batch=1),
    "imaging, one head in three stages": tiny("imaging", **NET, deep_supervision=True),
    "imaging, 4 classes, 2 channels": tiny("imaging", **NET, classes=4, channels=2),
    "speech, deep, many ids": tiny(
        "speech",
        encoder_layers=3,
        decoder_layers=1,
        hidden=48,
        heads=3,
        intermediate=80,
        mel_bins=20,
        seconds=1,
        vocab=99,
        batch=2,
        text_positions=20,
        text_tokens=9,
        new_tokens=5,
    ),
    "llm": tiny("llm", cache="dynamic"),
    "llm, untied, grouped": replace(UNTIED, cache="dynamic"),
    "pathology, gated, with registers": tiny("pathology", **GATED),
    "pathology, finished encoder": tiny("pathology", train_encoder=False),
    "video, odd sizes, no guidance": tiny("video", **CLIPS),
    "video, to pixels": tiny("video", decode=True, batch=2),
    "video, one frame to pixels": tiny("video", **{**CLIPS, "latent": (1, 6, 4)}, decode=True),
    "llm, one key head": tiny("llm", kv_heads=1, cache="dynamic"),
    "driving, 3 classes": tiny("driving", batch=2, classes=3, grid=(48, 64), width=24),
    "molecules, few neighbours": tiny("molecules", atoms=9, neighbours=3, hidden=48, layers=3),
    "molecules, energy alone": tiny("molecules", forces=False),
    "face, some identities": tiny("face", **FACE),
    "surveillance, denoising": tiny("surveillance", **DETECTOR),
}
"""Each at tiny, and more."""
STEPS = [(name, phase) for name, case in CASES.items() for phase in case.phases if name != "align"]
"""Torch counts products alone, and an alignment has none."""


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("name", NAMES)
def test_an_untrained_net_infers_in_16_bits_what_it_does_in_fp32(name: str, dtype: Dtype) -> None:
    """Else each of its rows on a device that takes such a type is INVALID."""
    skip_without_libraries(name)
    case = tiny(name)
    if dtype not in (case.dtypes or (dtype,)):
        pytest.skip(f"{name} does not run in {dtype}")
    for phase in (one for one in case.phases if not (one.is_training or one.is_served)):
        config = request_of(f"{name}-{phase.name}", dtype=dtype).config
        check = check_output(case, phase, config=config, device=torch.device("cpu"))
        assert check.problem is None, check


@pytest.mark.parametrize("name", NAMES)
def test_parameters_of_a_size_survive_text_and_their_number_is_the_nets(name: str) -> None:
    skip_without_libraries(name)
    found = discovery.load(name)
    for size in found.cls.sizes:
        workload = discovery.instance(found, size=size, overrides={})
        texts = {key: str(value) for key, value in discovery.parameters(workload).items()}
        assert discovery.instance(found, size=None, overrides=texts) == workload
        with torch.device("meta"):
            net = workload.build_net()
        assert workload.num_parameters() == sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(("name", "phase"), STEPS, ids=lambda x: getattr(x, "name", x))
def test_flops_by_formula_are_those_of_a_step(name: str, phase: Phase) -> None:
    skip_without_libraries(name)
    workload = CASES[name]
    batch = generated_batch(workload, phase)
    net = workload.build_net().train(phase.is_training)
    with torch.set_grad_enabled(phase.is_training):
        inputs = batch if phase.is_training else workload.prepare(phase, net, batch)
        # A fused attention would be counted by a rule of its own, its backward with recomputation.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            output = getattr(workload, "loss" if phase.is_training else phase.name)(net, inputs)
            if phase.is_training:
                output.backward()
    assert workload.num_parameters() == sum(p.numel() for p in net.parameters())
    workload.check(phase, output.detach() if phase.is_training else output)
    assert workload.items(phase, batch) == workload.items(phase, None)
    expected = workload.flops_per_item(phase) * workload.items(phase, batch)
    # Older transformers make the rotary table by a matrix product.
    rotary = counter.get_flop_counts().get("LlamaForCausalLM.model.rotary_emb", {})
    assert counter.get_total_flops() - sum(rotary.values()) == pytest.approx(expected, rel=1e-12)


NAN, INF = torch.tensor(float("nan")), float("inf")
INFINITE = torch.tensor(INF)


def found_boxes(*, logit: float = 0.0, classes: int = 3, width: float = 0.5) -> Any:
    return {"boxes": torch.full((1, 2, 4), width), "logits": torch.full((1, 2, classes), logit)}


def test_an_output_that_cannot_be_right_is_refused() -> None:
    for name, phase, output, words in [
        ("align", "infer", torch.tensor([1e9]), "impossible"),
        ("genomics", "train", NAN, "loss is not finite"),
        ("genomics", "score", torch.tensor([0.5, INF]), "score is not finite"),
        ("speech", "encode", NAN, "output is not finite"),
        ("speech", "transcribe", {"ids": torch.tensor([64])}, "outside 0 to 63"),
        ("tabular", "infer", torch.tensor([0.5, 1.5]), "impossible"),
        ("video", "infer", NAN, "clip is not finite"),
        ("pathology", "train", NAN, "loss is not finite"),
        ("pathology", "infer", {"logits": torch.zeros(1, 3)}, "shape"),
        ("imaging", "train", NAN, "loss .* not finite"),
        ("imaging", "infer", torch.full((1, 3, 4, 4, 4), INF), "logits .* not finite"),
        ("imaging", "infer", torch.zeros(1, 2, 4, 4, 4), "shape"),
        ("llm", "train", NAN, "not finite"),
        ("llm", "train", INF, "not finite"),
        ("llm", "decode", {"ids": torch.tensor([1]), "logits": NAN}, "logits is not finite"),
        ("llm", "decode", {"ids": torch.tensor([256])}, "outside 0 to 255"),
        ("driving", "train", NAN, "loss .* not finite"),
        ("driving", "infer", {"scores": torch.tensor([2.0]), "boxes": torch.ones(7)}, "scores"),
        ("driving", "infer", {"scores": torch.ones(1), "boxes": NAN}, "boxes are not finite"),
        ("molecules", "train", NAN, "loss .* not finite"),
        ("molecules", "infer", (torch.ones(1), NAN), "force .* not finite"),
        ("molecules", "infer", (NAN, None), "energy .* not finite"),
        ("face", "train", NAN, "loss is not finite"),
        ("face", "infer", {"cosine": NAN}, "cosine is not finite"),
        ("face", "infer", {"cosine": torch.tensor([-1.1])}, "cosine of 1.1 is impossible"),
        ("face", "infer", {"cosine": torch.ones(1), "place": torch.tensor([1000])}, "gallery"),
        (
            "face",
            "infer",
            {"cosine": torch.zeros(1), "place": torch.tensor([0]), "embedding": torch.zeros(1, 64)},
            "length of 1",
        ),
        ("surveillance", "train", INFINITE, "loss is not finite"),
        ("surveillance", "infer", found_boxes(logit=INF), "logits are not finite"),
        ("surveillance", "infer", found_boxes(classes=4), "not 3 classes"),
        ("surveillance", "infer", found_boxes(width=1.5), "outside the frame"),
    ]:
        with pytest.raises(ValueError, match=words):
            CASES[name].check(discovery.load(name).phase(phase), output)


def test_listing_formulas_and_checks_import_nothing_heavy_and_a_trial_what_its_net_needs(
    tmp_path: Path,
) -> None:
    (tmp_path / "text.txt").write_text("words " * 1000)
    write(tmp_path / "phantoms", cases=2, seed=0, shape=(16, 14, 12))
    program = f"""
import importlib, sys
from pathlib import Path
from bench.core.nouns import Layout
from bench.parallel.support import check_layout
from workloads import imaging, llm

def check_absent(*names):
    assert not sys.modules.keys() & set(names), names

for name in {NAMES}:
    cls = importlib.import_module(f"workloads.{{name}}").Workload
    for values in cls.sizes.values():
        workload = cls(**values)
        for phase in workload.phases:
            assert workload.flops_per_item(phase) > 0
            assert workload.memory_bytes(phase, dtype="bf16") > 0
check_layout(llm.Workload(), llm.TRAIN, Layout(strategy="tp", tensor=8))
check_absent("torch", "monai", "numpy", "nibabel", "transformers")
for room, name in ((llm, "text.txt"), (imaging, "phantoms")):
    room.Workload(**room.Workload.sizes["tiny"]).check_data(Path({str(tmp_path)!r}) / name)
check_absent("torch", "monai", "transformers")
for library in imaging.Workload.libraries:
    importlib.import_module(library)
check_absent("transformers")
import transformers.utils  # whoever wants it afterwards gets it
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


REFUSED = {
    "align": ["length 0 must be from 1", "batch 0 must be from 1"],
    "genomics": [
        "batch 0", "layers 0", "kmer 0", "kmer 9", "vocab 19 vocab must be at least 20",
        "window_tokens 3", "hidden 66 multiple of 2 \\* heads", "learning_rate 0.0",
    ],
    "face": [
        "depths 1x1", "widths 8x8x8x0", "pixels 0", "embedding 0", "identities 0", "gallery 0",
        "batch 1 batch must be at least 2", "sample_rate 0", "sample_rate 1.5", "learning_rate 0",
    ],
    "surveillance": [
        "block vgg", "depths 1x1", "widths 8x8x8x0", "stem 1", "hidden 48 multiple of 32",
        "feedforward 0", "expansion 0", "decoder_layers 1 at least 2", "queries 337 at most 336",
        "denoising -1", "pixels 100 multiple of 32", "classes 0", "objects 0", "batch 0",
        "cameras 0", "learning_rate 0",
    ],
    "imaging": [
        "batch 0", "channels 0", "classes 1", "classes 256", "filters 8x16", "filters 8x0x8",
        "patch 32x32", "patch 30x32x32", "patch 4x4x4", "patch 0x32x32", "volume 32x32",
        "volume 32x32x0", "sw_batch_size 0", "cases 0", "window_hu 240x-160", "window_hu 5",
        "spacing_mm 1x1", "spacing_mm 0x1x1", "spacing_mm nanx1x1", "spacing_mm mean",
        "schedule_steps 0",
    ],
    "llm": [
        "vocab 255 vocab must be at least 256", "kv_heads 3 multiple of kv_heads",
        "hidden 65 multiple of 2 \\* heads", "layers 0 layers must be at least 1",
        "new_tokens 0 new_tokens must be at least 1", "batch -1 batch must be at least 1",
        "cache statik did you mean 'static'",
        "learning_rate 0.0 learning_rate must be greater than 0",
    ],
    "driving": [
        "batch 0", "pillars 0", "points 0", "width 0", "classes 0", "classes 11", "grid 32",
        "grid 32x30", "grid 8x32", "pillar_m 0",
    ],
    "molecules": [
        "batch 0", "atoms 1", "hidden 1", "layers 0", "radial 0", "neighbours 0", "cutoff 0",
    ],
    "pathology": ["batch 0", "hidden 50 multiple of heads", "tile 50 multiple of patch",
                  "classes 1", "registers -1", "bag 0", "learning_rate 0"],
    "sleep": ["seconds 0", "train_factor 0", "batch 0 batch must be greater than 0"],
    "speech": [
        "batch 0", "seconds 0", "hidden 65", "hidden 62", "vocab 63", "text_tokens 1",
        "text_tokens 17", "new_tokens 17", "learning_rate 0.0",
    ],
    "tabular": ["batch 0", "features 0", "hidden 0"],
    "video": ["batch 0", "steps 0", "head_dim 5", "latent 3x7x8", "latent 8x8", "text_dim 8",
              "text_tokens 1", "learning_rate 0", "decoder_width 5"],
}  # fmt: skip
"""Lines of a parameter, its value, and what the message has; by default the parameter's name."""


@pytest.mark.parametrize("name", REFUSED)
def test_an_impossible_parameter_is_refused_by_name(name: str) -> None:
    found = discovery.load(name)
    for line in REFUSED[name]:
        key, value, *words = line.split(" ", 2)
        with pytest.raises(UsageError, match=words[0] if words else key):
            discovery.instance(found, size="tiny", overrides={key: value})


def test_the_version_follows_the_parts_that_are_imported(tmp_path: Path) -> None:
    (tmp_path / "_room").mkdir()
    for line, part in [
        ("import _parts", "_parts.py"),
        ("from _parts import x", "_parts.py"),
        ("from workloads._room.inner import x", "_room/inner.py"),
        ("from workloads._room import inner", "_room/inner.py"),
    ]:
        hashes = []
        for text in ("x = 1\n", "x = 2\n", "x = 2\n"):
            (tmp_path / part).write_text(text)
            (tmp_path / "mine.py").write_text(f"def later():\n    {line}\n")
            discovery.source_hash.cache_clear()
            hashes.append(discovery.source_hash(tmp_path / "mine.py"))
        assert hashes[0] != hashes[1] == hashes[2]


(ALIGN,) = align.Workload.phases
TRAIN, INFER = sleep.Workload.phases


def plain_score(first: list[int], second: list[int]) -> float:
    """Smith and Waterman's recurrence, cell by cell."""
    table = [[0.0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, a in enumerate(first, start=1):
        for j, b in enumerate(second, start=1):
            paired = table[i - 1][j - 1] + (MATCH if a == b else MISMATCH)
            table[i][j] = max(0.0, paired, table[i - 1][j] - GAP, table[i][j - 1] - GAP)
    return max(map(max, table))


def test_every_score_equals_the_plain_recurrence_also_when_the_net_is_cast() -> None:
    def pairs_of(workload: align.Workload) -> torch.Tensor:
        return torch.stack(list(workload.dataset(ALIGN, data=None, seed=3)))

    for length in (1, 2, 7, 32):
        workload = align.Workload(batch=6, length=length)
        pairs = pairs_of(workload)
        pairs[0, 1] = pairs[0, 0]  # equal sequences
        pairs[1, 0], pairs[1, 1] = 0, 1  # nothing in common
        scores = workload.infer(workload.build_net(), pairs)
        assert scores.tolist() == [plain_score(*pair.tolist()) for pair in pairs]
        assert scores[0] == MATCH * length and scores[1] == 0.0
        workload.check(ALIGN, scores)
    # They stay exact when the net is cast. Second sequences are noisy copies of the first.
    pairs = pairs_of(align.Workload(batch=8, length=640))
    is_kept = (pairs[:, 0] == pairs[:, 1]).float().mean()
    assert is_kept == pytest.approx(0.9 + 0.1 / 4, abs=0.02)
    equal = pairs[:1, :1, :300].expand(-1, 2, -1)
    for dtype in (torch.bfloat16, torch.float16):
        assert workload.build_net().to(dtype)(equal)[0] == MATCH * 300
    workload = align.Workload(batch=3, length=10)
    assert workload.flops_per_item(ALIGN) == 700.0
    assert workload.elements(ALIGN, None) == 300 and workload.items(ALIGN, None) == 3
    assert workload.bytes_per_item(ALIGN, dtype_bytes=4) == 3 * 4 * 10 * 19


def test_a_step_takes_its_time_to_a_thousandth() -> None:
    workload = sleep.Workload(seconds=0.02, train_factor=0.5)
    net, batch = workload.build_net(), torch.rand(1, 8)
    for phase, step, expected_s in ((INFER, workload.infer, 0.02), (TRAIN, workload.loss, 0.01)):
        times_s, kept = [], []  # results are kept, so that freeing them is not timed
        with torch.set_grad_enabled(phase.is_training):
            for _ in range(17):
                start_s = time.perf_counter()
                kept.append(step(net, batch))
                times_s.append(time.perf_counter() - start_s)
        # A busy machine can only make a wait longer: the shortest shows what is waited for.
        assert expected_s <= min(times_s) < expected_s * 1.001 + 1e-4
        assert workload.simulated_step_s(phase) == expected_s


def test_the_loss_of_the_tabular_probe_falls() -> None:
    torch.manual_seed(0)
    probe = tiny("tabular")
    samples = probe.dataset(probe.phases[0], data=None, seed=0)
    losses = train(probe, net=probe.build_net(), samples=[samples[0]], steps=60)
    assert losses[-1] < 0.8 * losses[0]

"""Clips: a short training learns them and their text, files are taken or refused in one line."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench.core.errors import DataError
from tests.cli.conftest import Ask, ask
from tests.workloads.steps_of_workloads import skip_without_libraries, train
from workloads._video.video_cost import VideoNet
from workloads.video import INFER, TRAIN, Workload

__all__ = ["ask"]  # a fixture

TINY = Workload(**Workload.sizes["tiny"])
LIGHT = 8
"""Place of the text that says whether the bar is light or dark."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def text_match(clips: torch.Tensor, text: torch.Tensor) -> float:
    """Share of clips that are as light or dark as their text says."""
    contrast = clips[:, ::2].flatten(1).mean(1) - clips[:, 1::2].flatten(1).mean(1)
    return float(((contrast > 0) == (text[:, 0, LIGHT] > 0)).float().mean())


def test_a_short_training_learns_clips_and_what_is_made_is_as_the_text_says() -> None:
    skip_without_libraries("video")
    torch.manual_seed(0)
    net = TINY.build_net()
    prompts = TINY.dataset(INFER, data=None, seed=1)
    batch = {name: torch.stack([prompts[index][name] for index in range(48)])
             for name in ("noise", "text")}  # fmt: skip
    assert text_match(batch["noise"], batch["text"]) < 0.75, "noise knows nothing"
    losses = train(TINY, net=net, samples=TINY.dataset(TRAIN, data=None, seed=0), steps=200)
    # The target's variance is that of the noise, 1, and of the clip.
    assert torch.stack(losses[-20:]).mean() < 0.25 < 0.9 < torch.stack(losses[:5]).mean()
    with torch.inference_mode():
        assert text_match(TINY.infer(net.eval(), batch), batch["text"]) >= 0.9
        plain = replace(TINY, guidance=False).infer(net, batch)
    assert plain.shape == batch["noise"].shape and plain.isfinite().all()


def test_sizes_are_those_that_wan_and_mlperf_publish() -> None:
    base, large = VideoNet(), VideoNet(heads=40, layers=40, feedforward=13824, latent=(21, 90, 160))
    assert (base.num_parameters(), large.num_parameters()) == (1_418_996_800, 14_288_491_584)
    assert (base.tokens, large.tokens) == (32_760, 75_600)
    assert large.forward_flops() == pytest.approx(6.52e15, rel=1e-3)
    assert Workload().flops_per_item(INFER) == pytest.approx(40 * 0.283e15, rel=1e-3)
    ratio = Workload().flops_per_item(INFER) / Workload().flops_per_item(TRAIN)
    assert ratio == pytest.approx(40 / 3, rel=1e-3), "a clip asks more than a training step on it"


def test_decoded_latents_are_pixels_by_the_decoder_that_wan_publishes() -> None:
    skip_without_libraries("video")
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    with torch.device("meta"):
        whole = AutoencoderKLWan()
    assert sum(one.numel() for one in whole.parameters()) == 126_892_531
    used = [*whole.decoder.parameters(), *whole.post_quant_conv.parameters()]
    decoder = Workload(decode=True).decoder
    assert decoder is not None
    assert decoder.num_parameters() == sum(one.numel() for one in used) == 73_295_603
    torch.manual_seed(0)
    workload = replace(TINY, decode=True, batch=1)
    net = workload.build_net().eval()
    prompt = workload.dataset(INFER, data=None, seed=0)[0]
    batch = {name: prompt[name][None] for name in prompt}
    with torch.inference_mode():
        pixels = workload.infer(net, batch)
        latents = TINY.infer(net, batch)
        # A frame sees none that comes later: four of pixels are a frame of latents.
        latents[:, :, -1] += 1
        other = net(latents)
    assert pixels.shape == (1, 3, 9, 64, 64) and pixels.abs().max() <= 1 and pixels.std() > 0
    assert torch.equal(other[:, :, :5], pixels[:, :, :5])
    assert not torch.equal(other[:, :, 5:], pixels[:, :, 5:])
    workload.check(INFER, pixels)


def test_samples_follow_seed_and_index() -> None:
    first, again, other = (TINY.dataset(TRAIN, data=None, seed=seed) for seed in (0, 0, 1))
    for name in ("latents", "noise", "time", "text"):
        assert torch.equal(first[3][name], again[3][name])
    assert not torch.equal(first[3]["noise"], other[3]["noise"])
    assert not torch.equal(first[3]["noise"], first[4]["noise"])
    assert 0 <= first[3]["time"] < 1
    assert set(TINY.dataset(INFER, data=None, seed=0)[0]) == {"noise", "text"}


def test_stored_latents_are_read_and_what_is_wrong_with_a_file_is_one_line(
    ask: Ask, tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    run = ("run", "--workload", "video", "--size", "tiny", "--device", "fake", "--dry-run")
    folder, file = tmp_path / "clips", tmp_path / "clips" / "a.safetensors"

    def refused(*, path: Path = folder) -> str:
        return ask(*run, "--data", path, code=2).one_line

    folder.mkdir()
    assert f"{folder} has no .safetensors file" in refused()
    good = {"latents": torch.ones(4, 3, 8, 8), "text": torch.ones(1, 9)}
    save_file(good, file)
    ask(*run, "--data", folder)
    sample = TINY.dataset(TRAIN, data=folder, seed=0)[5]
    assert torch.equal(sample["latents"], good["latents"]) and sample["text"].sum() == 9
    for changed, said in (
        (
            {"latents": torch.ones(2, 3, 4, 4)},
            "latents are 2 x 3 x 4 x 4, this net's 4 x 3 x 8 x 8",
        ),
        ({"latents": torch.ones(2, 3, 4, 4)}, "--set channels=2 --set latent=3x4x4"),
        ({"text": torch.ones(3, 9)}, "text is 3 x 9, this net takes at most 2 tokens of 9"),
        ({"text": torch.ones(1, 9) * 1j}, "text is of C64; give floating-point numbers"),
        ({"latents": torch.ones(4, 3, 8, 8).int()}, "latents is of I32"),
    ):
        save_file({**good, **changed}, file)
        assert said in refused()
    nan, far = torch.full((1, 9), float("nan")), torch.full((4, 3, 8, 8), 1e39, dtype=torch.float64)
    for changed, name in (
        ({"text": nan}, "text"),
        ({"text": nan.half()}, "text"),
        ({"latents": far}, "latents"),
    ):
        save_file({**good, **changed}, file)
        said = f"{file}: {name} holds values that are not finite in fp32"
        assert said in refused()
        with pytest.raises(DataError, match=re.escape(said)):
            TINY.dataset(TRAIN, data=folder, seed=0)[0]
    save_file({**good, "text": nan.bfloat16()}, file)  # numpy has no bf16: met when it is loaded
    with pytest.raises(DataError, match="text holds values that are not finite"):
        TINY.dataset(INFER, data=folder, seed=0)[0]
    save_file({"latents": good["latents"]}, file)
    assert "has no tensor 'text', only latents" in refused()
    save_file(good, file)
    hidden = folder / "._a.safetensors"
    hidden.write_bytes(b"of another system")
    ask(*run, "--data", folder)
    whole, samples = file.read_bytes(), TINY.dataset(TRAIN, data=folder, seed=0)
    start = 8 + int.from_bytes(whole[:8], "little")
    broken = [
        json.dumps({**json.loads(whole[8:start]), "text": wrong}).encode()
        for wrong in (1, {"dtype": "F32"}, {"dtype": "F32", "shape": ["9"], "data_offsets": [0]})
    ]
    headers = [*broken, b'{"a":' * 100_000]
    made = [len(header).to_bytes(8, "little") + header + whole[start:] for header in headers]
    for content in (whole[:-20], whole[:30], whole[:3], b"", whole + b"1", *made):
        file.write_bytes(content)
        said = f"{file} is cut off, or cannot be read as safetensors"
        assert said in refused()
        with pytest.raises(DataError, match=re.escape(said)):
            samples[0]
    assert "is no folder" in refused(path=file)

"""The Whisper: its size, its caches, its text, folders as LibriSpeech's, and bad files."""

import importlib.util
import pickle
import wave
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.cli import main
from bench.core.errors import DataError
from tests.workloads.steps_of_workloads import generated_batch
from workloads._speech import speech_text as texts
from workloads.speech import Workload

TRAIN, ENCODE, TRANSCRIBE = Workload.phases
TINY = Workload(**Workload.sizes["tiny"])
PAIR = replace(TINY, batch=2, text_tokens=12, new_tokens=6)


def test_named_sizes_are_the_published_nets() -> None:
    # huggingface.co/openai/whisper-small and -large-v3, counted as torch counts a tied head.
    base, large = (Workload(**Workload.sizes[size]) for size in ("base", "large"))
    assert base.num_parameters() == 241_734_912
    assert large.num_parameters() == 1_543_490_560
    assert large.flops_per_item(ENCODE) == pytest.approx(2273.8e9, rel=1e-4)


def test_an_utterance_is_made_of_seed_and_index_and_lights_a_band_for_each_letter() -> None:
    one, again, other = (TINY.dataset(TRAIN, data=None, seed=seed) for seed in (3, 3, 4))
    for copy in (again[5], pickle.loads(pickle.dumps(one))[5]):
        assert all(torch.equal(one[5][name], copy[name]) for name in one[5])
    assert not torch.equal(one[5]["mel"], other[5]["mel"])
    for index in range(5):
        sample = one[index]
        letters = [int(token) - 2 - 33 for token in sample["targets"] if token > texts.END]
        assert 8 <= len(letters) <= 15
        lit = sample["mel"].unflatten(1, (-1, 10)).mean(-1).argmax(0)
        assert lit[: len(letters)].tolist() == letters
        assert sample["inputs"].tolist()[1 : len(letters) + 1] == [one + 35 for one in letters]


def test_text_is_read_and_compared_token_by_token() -> None:
    assert texts.ids_of("a Z'é") == [35, 2, 60, 9, 33]
    assert max(texts.ids_of("]")) == 63, "as many ids as tiny has"
    inputs, targets = texts.inputs_and_targets("AB", tokens=5)
    assert (inputs, targets) == ([1, 35, 36, 0, 0], [35, 36, 0, -100, -100])
    # kitten to sitting are three changes; nothing to three letters are three.
    words = [texts.ids_of(one) for one in ("kitten", "sitting", "", "abc")]
    assert texts.token_error_rate([words[0]], [words[1]]) == pytest.approx(3 / 7)
    assert texts.token_error_rate([words[0], [0, *words[1]]], [words[0], words[3]]) == 3 / 9


def test_an_utterance_weighs_the_same_however_long_its_text_is() -> None:
    torch.manual_seed(0)
    net, batch = TINY.build_net(), generated_batch(PAIR, TRAIN)
    with torch.no_grad():
        each = [TINY.loss(net, {name: value[[row]] for name, value in batch.items()})
                for row in range(2)]  # fmt: skip
        assert float(TINY.loss(net, batch)) == pytest.approx(float(sum(each)) / 2, rel=1e-5)
        changed = {**batch, "inputs": batch["inputs"].clone()}
        changed["inputs"][:, 11:] = 7
        logits = [net(one["mel"], one["inputs"])[:, :11] for one in (batch, changed)]
    torch.testing.assert_close(*logits)  # nothing is seen before its time
    assert len(set((batch["targets"] >= 0).sum(dim=1).tolist())) == 2, "of different length"


@torch.inference_mode()
def test_cached_tokens_are_those_that_recomputing_gives() -> None:
    torch.manual_seed(0)
    net: Any = TINY.build_net().eval()
    batch = generated_batch(PAIR, TRANSCRIBE)
    output = PAIR.transcribe(net, batch)
    encoded = PAIR.encode(net, batch)
    assert encoded.shape == (2, 100, 64)
    ids = torch.full((2, 1), texts.START)
    for place in range(6):
        logits = net(None, ids, encoded)[:, -1]
        if place == 0:
            torch.testing.assert_close(PAIR.comparable(TRANSCRIBE, output), logits)
        ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(output["ids"], ids[:, 1:])
    torch.testing.assert_close(output["logits"], logits)
    PAIR.check(TRANSCRIBE, output)


def write_wav(path: Path, *, seconds: float = 1.0, rate: int = 16_000, channels: int = 1,
              width: int = 2) -> None:  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = 8000 * np.sin(np.arange(int(seconds * rate * channels)) * 0.2)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2" if width == 2 else "<i4").tobytes())


def folder_of(root: Path, lines: str = "1-2-0000 HELLO\n1-2-0001 I'M HERE\n") -> Path:
    chapter = root / "1" / "2"
    for number in range(2):
        write_wav(chapter / f"1-2-000{number}.wav", seconds=1 + number / 2)
    (chapter / "1-2.trans.txt").write_text(lines)
    return chapter


def test_wav_and_flac_of_one_sound_are_read_alike(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile", reason="pip install 'gapbench[speech]'")
    chapter = folder_of(tmp_path / "wav")
    other = folder_of(tmp_path / "flac")
    for path in other.glob("*.wav"):
        samples, rate = soundfile.read(path, dtype="int16")
        soundfile.write(path.with_suffix(".flac"), samples, rate)
        path.unlink()
    PAIR.check_data(tmp_path / "wav")
    wavs, flacs = (PAIR.dataset(TRAIN, data=tmp_path / kind, seed=1) for kind in ("wav", "flac"))
    for mine, same in zip(wavs, flacs, strict=True):
        assert all(torch.equal(mine[name], same[name]) for name in mine)
        assert mine["mel"].shape == (16, 200) and mine["mel"].std() > 0.1
    assert {texts.START, texts.END} <= set(wavs[0]["inputs"].tolist())
    said = {tuple(texts.cut(one["targets"].tolist())) for one in wavs}
    assert said == {tuple(texts.ids_of(text)) for text in ("HELLO", "I'M HERE")}
    batch = torch.utils.data.default_collate(list(wavs))
    assert PAIR.elements(TRAIN, batch) == 2  # 1 s and 1.5 s; generated ones fill their 2 s
    assert PAIR.elements(TRAIN, None) == 4
    assert PAIR.data_used(TRAIN, chapter).words == "2 utterances of 2 s"
    PAIR.loss(PAIR.build_net(), batch).backward()
    for kind, found in (("wav", wavs), ("flac", flacs)):
        for path in (tmp_path / kind).rglob(f"*.{kind}"):
            path.write_bytes(path.read_bytes()[:30])
        with pytest.raises(DataError, match=rf"1-2-000\d\.{kind} is no {kind.upper()} file"):
            found[0]


def test_names_and_marks_that_other_systems_write_are_read(tmp_path: Path) -> None:
    chapter = folder_of(tmp_path, "\ufeff1-2-0000 HELLO\n1-2-0001 I'M HERE\n")
    (chapter / "1-2-0000.wav").rename(chapter / "1-2-0000.WAV")
    (chapter / "._1-2.trans.txt").write_bytes(b"\xff")
    assert PAIR.data_used(TRAIN, tmp_path).words == "2 utterances of 2 s"
    assert len(PAIR.dataset(TRAIN, data=tmp_path, seed=1)[0]["mel"]) == 16


def test_what_the_net_cannot_read_is_left_out_and_counted(tmp_path: Path) -> None:
    chapter = folder_of(tmp_path, "1-2-0000 A\n1-2-0001 B\n1-2-0002 LONG\n1-2-0003 TWELVE CHARS\n")
    write_wav(chapter / "1-2-0002.wav", seconds=2.1)
    write_wav(chapter / "1-2-0003.wav")
    assert PAIR.data_used(TRAIN, tmp_path).words == (
        "2 utterances of 2 s; left out: 1 longer than 2 s; left out: 1 of more than 11 letters"
    )
    (chapter / "1-2.trans.txt").write_text("1-2-0002 LONG\n")
    PAIR.check_data(tmp_path)
    assert PAIR.data_used(TRAIN, tmp_path).num_samples == 0


def test_a_batch_that_is_not_filled_is_refused_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chapter = folder_of(tmp_path, "1-2-0000 A\n1-2-0001 B\n1-2-0002 LONG\n")
    write_wav(chapter / "1-2-0002.wav", seconds=2.1)
    line = ["run", "-w", "speech:train", "--device", "fake", "--dry-run", "--data", str(tmp_path)]
    assert main([*line, "--size", "tiny"]) == 2
    used = "2 utterances of 2 s; left out: 1 longer than 2 s"
    assert capsys.readouterr().err == (
        f"bench: {tmp_path} ({used}): 2 samples for train, but a batch takes 32; give more, or "
        "--batch 2\n"
    )
    assert main([*line, "--size", "tiny", "--batch", "2"]) == 0
    assert used in capsys.readouterr().out
    assert main(line) == 0, "small, which is chosen, takes two"


def test_texts_without_a_letter_that_is_known_are_refused(tmp_path: Path) -> None:
    chapter = folder_of(tmp_path, "1-2-0000 你好\n1-2-0001 ¿!?\n")
    PAIR.data_used(TRAIN, tmp_path)
    (chapter / "1-2.trans.txt").write_text("1-2-0000 你好\n1-2-0001 ¿¡\n")
    PAIR.check_data(tmp_path)
    assert PAIR.data_used(ENCODE, tmp_path).num_samples == 2, "only training reads texts"
    with pytest.raises(
        DataError, match="no text has a letter that this net knows .* '你好' of 1-2"
    ):
        PAIR.data_used(TRAIN, tmp_path)


def test_flac_that_is_damaged_in_the_middle_is_refused_by_name(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile", reason="pip install 'gapbench[speech]'")
    flac = folder_of(tmp_path) / "1-2-0000.flac"
    soundfile.write(flac, np.sin(np.arange(32_000) ** 1.1 * 0.2), 16_000)
    PAIR.check_data(tmp_path)
    content = bytearray(flac.read_bytes())
    content[len(content) // 2] ^= 0xFF
    flac.write_bytes(content)
    with pytest.raises(DataError, match="1-2-0000.flac is no FLAC file that can be read: .*flac"):
        PAIR.check_data(tmp_path)


def test_a_bad_folder_or_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(problem: str, where: Path) -> None:
        with pytest.raises(DataError) as caught:
            PAIR.check_data(tmp_path)
        assert problem in str(caught.value) and str(where) in str(caught.value)
        assert "\n" not in str(caught.value)

    refused("has no .trans.txt", tmp_path)
    chapter = folder_of(tmp_path, "1-2-0000\n")
    refused("line 1 needs an utterance's name, a space and its text", chapter / "1-2.trans.txt")
    folder_of(tmp_path, "1-2-0009 HELLO\n")
    refused("does not exist; line 1 of", chapter / "1-2-0009.flac")
    folder_of(tmp_path, "../2/1-2-0000 HELLO\n")
    refused("line 1 names '../2/1-2-0000' by a path", chapter / "1-2.trans.txt")
    folder_of(tmp_path, f"{'1' * 300} HELLO\n")
    refused("does not exist; line 1 of", chapter / "1-2.trans.txt")
    (chapter / "1-2.trans.txt").write_bytes(b"1-2-0000 \xff\n")
    refused("is no UTF-8 text", chapter / "1-2.trans.txt")
    folder_of(tmp_path)
    first = chapter / "1-2-0000.wav"
    for changed, problem in [
        ({"rate": 8000}, "has 1 channel(s) of 8000 samples a second; give one of 16000"),
        ({"channels": 2}, "has 2 channel(s) of 16000 samples"),
        ({"width": 4}, "has 32 bits a sample; give WAV of 16 bits"),
        ({"seconds": 0}, "has no samples"),
    ]:
        write_wav(first, **changed)
        refused(problem, first)
    first.write_bytes(b"RIFF of no kind")
    refused("is no WAV file that can be read", first)
    write_wav(first)
    whole, never = first.read_bytes(), b"\xff\xff\xff\xff"
    for problem, content in [
        ("it ends too early", whole[:-1]),
        ("it ends too early", whole[:40] + never + whole[44:]),
        ("it ends too early", whole[:4] + never + whole[8:40] + never + whole[44:]),
        ("has 1 channel(s) of 0 samples a second", whole[:24] + bytes(4) + whole[28:]),
    ]:
        first.write_bytes(content)
        refused(problem, first)
    flac = first.with_suffix(".flac")
    flac.write_bytes(b"fLaC of no kind")
    if importlib.util.find_spec("soundfile"):
        refused("is no FLAC file that can be read", flac)
        import soundfile

        soundfile.write(flac, np.sin(np.arange(16_000) * 0.2), 16_000)
        flac.write_bytes(flac.read_bytes()[:9000])
        refused("is no FLAC file that can be read", flac)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    refused("pip install 'gapbench[speech]', or give WAV", flac)
    with pytest.raises(DataError, match="is no folder; give --data a folder with SPEAKER/CHAPTER"):
        PAIR.check_data(first)

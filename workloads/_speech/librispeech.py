"""Folders laid out as LibriSpeech: SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt and audio beside it.

A line of a .trans.txt is an utterance's name and its text; its audio is NAME.flac or NAME.wav, one
channel of 16,000 samples a second. WAV is read by the standard library, FLAC by soundfile (extra
`speech`). Utterances that are longer than the net reads are left out and counted.
"""

import importlib.util
import wave
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.core.errors import DataError
from bench.workload import NUM_READ_WHOLE, UsedData
from workloads._speech.speech_cost import WhisperShape
from workloads._speech.speech_text import KNOWN, has_signs

SAMPLES_PER_S = 16_000
SUFFIXES = (".flac", ".wav")
LAYOUT = "SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt with NAME.flac or NAME.wav beside it"


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """One line of a .trans.txt and its audio."""

    path: Path
    text: str
    seconds: float


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Name the file in whatever wave or soundfile raise; of a place past the end, RuntimeError."""
    try:
        yield
    except (wave.Error, EOFError, OSError, RuntimeError) as error:
        kind = _kind(path)[1:].upper()
        detail = str(error).removeprefix("Error : ").rstrip(".") or "it ends too early"
        raise DataError(f"{path} is no {kind} file that can be read: {detail}") from None


def _kind(path: Path) -> str:
    return path.suffix.lower()


def _check_wav(path: Path) -> tuple[int, int, int]:
    """Return samples, samples a second and channels of a WAV file of 16 bits; read the last one."""
    with _readable(path), wave.open(str(path), "rb") as file:
        if file.getsampwidth() != 2:
            bits = 8 * file.getsampwidth()
            raise DataError(f"{path} has {bits} bits a sample; give WAV of 16 bits")
        num_samples = file.getnframes()
        if num_samples:
            file.setpos(num_samples - 1)
            if len(file.readframes(1)) < 2 * file.getnchannels():
                raise EOFError
        return num_samples, file.getframerate(), file.getnchannels()


def _check_flac(path: Path) -> tuple[int, int, int]:
    """Return samples, samples a second and channels of a FLAC file; read the last one."""
    if importlib.util.find_spec("soundfile") is None:
        raise DataError(
            f"{path} is FLAC, which needs soundfile: pip install 'gapbench[speech]', or give WAV"
        )
    import soundfile

    with _readable(path), soundfile.SoundFile(path) as file:
        if file.frames:
            file.seek(file.frames - 1)
            if not len(file.read(1)):
                raise EOFError
        return file.frames, file.samplerate, file.channels


def _seconds(path: Path) -> float:
    """Return how long the audio is; DataError unless it is one channel of 16,000 a second."""
    check = _check_flac if _kind(path) == ".flac" else _check_wav
    num_samples, rate, channels = check(path)
    if (rate, channels) != (SAMPLES_PER_S, 1):
        raise DataError(
            f"{path} has {channels} channel(s) of {rate} samples a second; give one of "
            f"{SAMPLES_PER_S}, such as by ffmpeg -i IN -ac 1 -ar {SAMPLES_PER_S} OUT.wav"
        )
    if not num_samples:
        raise DataError(f"{path} has no samples")
    return num_samples / rate


def read_audio(path: Path) -> npt.NDArray[np.float32]:
    """Return samples from -1 to 1."""
    if _kind(path) == ".flac":
        import soundfile

        with _readable(path):
            samples, _ = soundfile.read(path, dtype="float32")
        return np.asarray(samples, dtype=np.float32)
    with _readable(path), wave.open(str(path), "rb") as file:
        whole = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
    return whole.astype(np.float32) / np.float32(32_768)


def read_utterances(folder: Path) -> list[Utterance]:
    """Return the utterances of a folder, or of one speaker or chapter of it, in order of name."""
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; give --data a folder with {LAYOUT}")
    texts = sorted(one for one in folder.rglob("*.trans.txt") if not one.name.startswith("."))
    if not texts:
        raise DataError(f"{folder} has no .trans.txt; give --data a folder with {LAYOUT}")
    return [one for path in texts for one in _utterances_of(path)]


def _utterances_of(path: Path) -> list[Utterance]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no UTF-8 text that can be read: {error}") from error
    audio = {
        one.stem: one
        for one in sorted(path.parent.iterdir(), key=_kind, reverse=True)  # FLAC over WAV
        if _kind(one) in SUFFIXES and one.is_file()
    }
    found = []
    for number, line in enumerate(lines, start=1):
        name, _, text = line.strip().partition(" ")
        if not name:
            continue
        if not text.strip():
            raise DataError(f"{path} line {number} needs an utterance's name, a space and its text")
        if Path(name).name != name:
            raise DataError(
                f"{path} line {number} names {name!r} by a path; it is a file beside it"
            )
        if name not in audio:
            missing = f"{path.parent / name}.flac (or .wav)"
            raise DataError(f"{missing} does not exist; line {number} of {path} names it")
        one = audio[name]
        found.append(Utterance(path=one, text=text.strip(), seconds=_seconds(one)))
    return found


def usable_utterances(shape: WhisperShape, folder: Path) -> tuple[list[Utterance], Counter[str]]:
    """Return the utterances that the net can read, and why others are left out, counted."""
    usable, left_out = [], Counter[str]()
    for one in read_utterances(folder):
        if one.seconds > shape.seconds:
            left_out[f"longer than {shape.seconds} s"] += 1
        elif len(one.text) >= shape.text_tokens:
            left_out[f"of more than {shape.text_tokens - 1} letters"] += 1
        else:
            usable.append(one)
    return usable, left_out


def check_folder(shape: WhisperShape, folder: Path) -> None:
    """Raise `DataError` for what cannot be used: all texts, heads and ends, some files whole."""
    usable, _ = usable_utterances(shape, folder)
    for one in usable[:NUM_READ_WHOLE]:
        read_audio(one.path)


def utterances_used(shape: WhisperShape, folder: Path, *, is_training: bool) -> UsedData:
    """Return how many utterances are used, how long they are, and why others are left out.

    `DataError` where nothing can be learned from their texts.
    """
    usable, left_out = usable_utterances(shape, folder)
    if is_training and usable and not any(has_signs(one.text) for one in usable):
        raise DataError(
            f"{folder}: no text has a letter that this net knows ({KNOWN}), such as "
            f"{usable[0].text[:20]!r} of {usable[0].path.name}: nothing can be learned from it"
        )
    seconds = sum(one.seconds for one in usable)
    others = "".join(f"; left out: {number} {reason}" for reason, number in left_out.items())
    words = f"{len(usable)} utterances of {seconds:.0f} s{others}"
    return UsedData(words=words, num_samples=len(usable))

from __future__ import annotations

import struct
import wave
from pathlib import Path

import numpy as np
import pytest

from edge_runtime import ErrorCode, HybridgeError
from edge_runtime.frame import Frame
from edge_runtime.sources import AudioFiles
from edge_runtime.tensor_spec import Array
from tests.edge_runtime.sources.sounds import wave_file


def _sine(count: int = 16000) -> Array:
    return np.asarray(0.5 * np.sin(np.arange(count) * 0.05), np.float64)


def _audio(item: object) -> Array:
    assert isinstance(item, Frame)
    return np.asarray(item.inputs["audio"])


def _packed(bits: int, kind: int) -> Array:
    """The sine as the bytes of each format, made by other means than the reader's."""
    sine = _sine()[:, np.newaxis]
    if kind == 3:
        return sine.astype(f"<f{bits // 8}")
    if bits == 8:
        return np.asarray(np.rint(sine * 127 + 128), np.uint8)
    if bits == 24:
        words = [round(value * (2**23 - 1)).to_bytes(3, "little", signed=True) for value in sine[:, 0]]
        return np.frombuffer(b"".join(words), "V3").reshape(-1, 1)
    return np.asarray(np.rint(sine * (2 ** (bits - 1) - 1)), f"<i{bits // 8}")


@pytest.mark.parametrize(
    ("kind", "bits", "error"),
    [(1, 8, 1 / 100), (1, 16, 1e-4), (1, 24, 1e-6), (1, 32, 1e-6), (3, 32, 1e-7), (3, 64, 1e-7)],
)
@pytest.mark.parametrize("extensible", [False, True])
def test_every_format_gives_the_same_sound(
    tmp_path: Path, kind: int, bits: int, error: float, extensible: bool
) -> None:
    content = wave_file(_packed(bits, kind), kind=kind, bits=bits)
    if extensible:
        form = content[20:36]
        longer = b"\xfe\xff" + form[2:] + struct.pack("<HHIH", 22, bits, 0, kind) + bytes(14)
        content = content[:16] + struct.pack("<I", len(longer)) + longer + content[36:]
    (tmp_path / "a.wav").write_bytes(content)
    (frame,) = AudioFiles(tmp_path / "a.wav", sample_rate=16000)
    audio = _audio(frame)
    assert audio.dtype == np.float32
    assert audio.shape == (16000,)
    np.testing.assert_allclose(audio, _sine(), atol=error)


def test_what_the_standard_library_writes_is_read_in_stereo_as_mean_and_by_channel(tmp_path: Path) -> None:
    left, right = _sine(1001), np.zeros(1001)
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(44100)
        file.writeframes((np.stack([left, right], axis=1) * 32767).astype("<i2").tobytes())
    mean, first, second = (
        _audio(next(iter(AudioFiles(tmp_path, channel=channel)))) for channel in (None, 0, 1)
    )
    np.testing.assert_allclose(first, left, atol=1e-4)
    np.testing.assert_allclose(mean, left / 2, atol=1e-4)
    assert not second.any()
    (error,) = AudioFiles(tmp_path, channel=2)
    assert isinstance(error, HybridgeError)
    assert "0 to 1" in error.message


@pytest.mark.parametrize(
    ("samples", "window", "hop", "pad", "starts"),
    [
        (1000, 250, None, True, [0, 250, 500, 750]),
        (1001, 250, None, True, [0, 250, 500, 750, 1000]),
        (1001, 250, None, False, [0, 250, 500, 750]),
        (1000, 400, 100, True, [0, 100, 200, 300, 400, 500, 600]),
        (1050, 400, 100, True, [0, 100, 200, 300, 400, 500, 600, 700]),
        (1050, 400, 100, False, [0, 100, 200, 300, 400, 500, 600]),
        (100, 400, 100, True, [0]),
        (100, 400, 100, False, []),
        (1000, 100, 300, True, [0, 300, 600, 900]),
        (950, 100, 300, True, [0, 300, 600, 900]),
        (950, 100, 300, False, [0, 300, 600]),
        (1000, 100, 450, True, [0, 450, 900]),
    ],
)
def test_windows_are_those_of_slicing(
    tmp_path: Path, samples: int, window: int, hop: int | None, pad: bool, starts: list[int]
) -> None:
    sound = np.arange(samples, dtype="<i2")[:, np.newaxis]
    (tmp_path / "a.wav").write_bytes(wave_file(sound, rate=1000))
    whole = np.concatenate([sound[:, 0] / 32768, np.zeros(window)]).astype(np.float32)
    hop_s = None if hop is None else hop / 1000
    frames = list(AudioFiles(tmp_path / "a.wav", window_s=window / 1000, hop_s=hop_s, pad=pad))
    assert [frame.time_s for frame in frames if isinstance(frame, Frame)] == [
        start / 1000 for start in starts
    ]
    for start, frame in zip(starts, frames, strict=True):
        np.testing.assert_array_equal(_audio(frame), whole[start : start + window])
    if len(frames) > 1:
        assert not np.shares_memory(_audio(frames[0]), _audio(frames[1]))


def _good() -> bytes:
    return wave_file(np.zeros((100, 1), "<i2"))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "RIFF WAVE"),
        (b"ID3\x03 an mp3 by another name", "RIFF WAVE"),
        (_good()[:20], "header"),
        (_good()[:36], "no samples"),
        (wave_file(np.zeros((0, 1), "<i2")), "no samples"),
        (_good()[:-1], "199 of 200 bytes"),
        (_good()[:44], "0 of 200 bytes"),
        (wave_file(np.zeros((9, 1), "<i2"), kind=85), "format 85"),
        (wave_file(np.zeros((9, 1), np.uint8), bits=4), "format 1 of 4 bits"),
        (wave_file(np.zeros((9, 0), "<i2")), "fits together"),
        (wave_file(np.zeros((9, 1), "<i2"), rate=0), "fits together"),
        (wave_file(np.zeros((9, 1), "<i2"), rate=2**31), "fits together"),
        (b"RIFF\0\0\0\0WAVEdata\x04\0\0\0abcd", "before their format"),
    ],
)
def test_damaged_files_are_one_error_each_and_the_rest_go_on(
    tmp_path: Path, content: bytes, says: str
) -> None:
    (tmp_path / "a.wav").write_bytes(content)
    (tmp_path / "b.wav").write_bytes(_good())
    error, frame = AudioFiles(tmp_path, window_s=1)
    assert isinstance(error, HybridgeError)
    assert error.code is ErrorCode.INPUT_INVALID
    assert says in error.message
    assert "a.wav" in error.message
    assert isinstance(frame, Frame)


def test_other_chunks_odd_ones_too_are_passed_over_and_a_pipe_may_not_know_its_length(tmp_path: Path) -> None:
    sound = np.arange(100, dtype="<i2")[:, np.newaxis]
    content = wave_file(sound, extra=[b"LIST\x03\0\0\0abc\0", b"fact\x04\0\0\0\0\0\0\0"])
    at = content.index(b"data") + 4
    (tmp_path / "a.wav").write_bytes(content + b"LIST\x04\0\0\0abcd")
    (tmp_path / "b.wav").write_bytes(content[:at] + b"\xff\xff\xff\xff" + content[at + 4 :])
    first, second = AudioFiles(tmp_path)
    np.testing.assert_array_equal(_audio(first), sound[:, 0] / np.float32(32768))
    np.testing.assert_array_equal(_audio(second), _audio(first))


def test_another_sample_rate_is_refused_with_the_way_to_convert_it(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wave_file(np.zeros((10, 1), "<i2"), rate=44100))
    (error,) = AudioFiles(tmp_path, sample_rate=16000)
    assert isinstance(error, HybridgeError)
    assert "44100" in error.message
    assert "-ar 16000" in error.message


def test_no_damage_to_a_header_gives_another_failure_than_one_error(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    good = bytearray(wave_file(np.zeros((50, 2), "<i2")))
    path = tmp_path / "a.wav"
    for _ in range(400):
        content = good.copy()
        for place in random.integers(0, 48, 3):
            content[place] = random.integers(0, 256)
        path.write_bytes(bytes(content[: random.integers(0, len(content) + 1)]))
        for item in AudioFiles(path, window_s=0.001):
            assert isinstance(item, HybridgeError) or _audio(item).dtype == np.float32


@pytest.mark.parametrize(
    "settings", [{"window_s": 0}, {"hop_s": 1}, {"window_s": 1, "hop_s": -1}, {"window_s": float("nan")}]
)
def test_windows_that_cannot_be_are_refused(tmp_path: Path, settings: dict[str, float]) -> None:
    (tmp_path / "a.wav").write_bytes(_good())
    with pytest.raises(HybridgeError) as caught:
        AudioFiles(tmp_path, **settings)  # type: ignore[arg-type]
    assert caught.value.code is ErrorCode.INPUT_INVALID

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from edge_runtime import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import Array
from tests.edge_runtime.operators.running import run


def _noise(count: int = 4000) -> Array:
    return (np.random.default_rng(0).normal(size=count) * 0.1).astype(np.float32)


def test_frames_are_windows_a_hop_apart() -> None:
    samples = np.arange(10, dtype=np.float32)
    frames = run("frame", samples, window=4, hop=3)["frames"]
    assert frames.tolist() == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
    frames += 1
    assert samples[3] == 3
    assert run("frame", np.stack([samples, samples]), window=4, hop=3)["frames"].shape == (2, 3, 4)
    whole = run("frame", np.array([-32768, 16384], np.int16), window=2, hop=1)["frames"]
    assert whole.tolist() == [[-1.0, 0.5]]


def _plain_mel(
    samples: Array, *, window: int, hop: int, fft: int, bands: int, low: float, high: float
) -> Array:
    """The HTK filter bank, sample by sample and bin by bin, as Young et al. (The HTK Book, 5.4) define it."""

    def mel(hertz: float) -> float:
        return 2595 * math.log10(1 + hertz / 700)

    edges = [mel(low) + (mel(high) - mel(low)) * k / (bands + 1) for k in range(bands + 2)]
    rows = []
    for start in range(0, len(samples) - window + 1, hop):
        part = [
            float(samples[start + n]) * (0.5 - 0.5 * math.cos(2 * math.pi * n / window))
            for n in range(window)
        ]
        row = [0.0] * bands
        for k in range(fft // 2 + 1):
            angle = -2j * math.pi * k / fft
            magnitude = abs(np.dot(part, np.exp(angle * np.arange(window))))
            for band in range(bands):
                at, (left, middle, right) = mel(k * 16_000 / fft), edges[band : band + 3]
                if left < at < right:
                    weight = (
                        (at - left) / (middle - left) if at <= middle else (right - at) / (right - middle)
                    )
                    row[band] += weight * magnitude
        rows.append([math.log(energy + 1e-6) for energy in row])
    return np.array(rows)


def test_mel_bands_are_those_of_the_definition() -> None:
    samples = _noise(400)
    plain = _plain_mel(samples, window=120, hop=90, fft=128, bands=12, low=80, high=7600)
    given = run("log-mel", samples, window=120, hop=90, bands=12, low_hz=80.0, high_hz=7600.0)["features"]
    np.testing.assert_allclose(given, plain, atol=2e-4)


def test_a_tone_is_loudest_in_its_band() -> None:
    time = np.arange(16_000) / 16_000
    for scale, bands in (("htk", 40), ("slaney", 40)):
        peaks = []
        for hertz in (200, 1000, 3000, 6000):
            tone = np.sin(2 * np.pi * hertz * time).astype(np.float32)
            peaks.append(
                int(run("log-mel", tone, bands=bands, scale=scale)["features"].mean(axis=0).argmax())
            )
        assert peaks == sorted(set(peaks))
        assert peaks[-1] > 30


def test_the_slaney_scale_is_linear_below_a_kilohertz_and_its_bands_have_one_area() -> None:
    from edge_runtime.operators.audio import _mel_weights

    # 15 mels at 1 kHz and 42 at 6.4 kHz, by its definition; edges a mel apart.
    weights, first = _mel_weights(16_000, 2**15, 41, 0.0, 6400.0, "slaney")
    step = 16_000 / 2**15
    np.testing.assert_allclose(weights.sum(axis=0) * step, 1, rtol=0.02)
    peaks = (weights.argmax(axis=0) + first) * step
    np.testing.assert_allclose(peaks[:14], 200 / 3 * np.arange(1, 15), atol=step)
    np.testing.assert_allclose(peaks[15:], 1000 * 6.4 ** (np.arange(1, 27) / 27), atol=step)


def test_power_is_the_square_of_magnitude_and_int16_the_same_sound() -> None:
    samples = _noise()
    settings = {"bands": 1, "low_hz": 0.0, "high_hz": 8000.0, "window": 4, "hop": 4, "offset": 0.0}
    # One bin of three lies within the band: the logarithm of a square is twice the logarithm, but for its weight.
    magnitude = run("log-mel", samples, **settings)["features"]
    for power in (2.0, 3.0):
        features = run("log-mel", samples, **settings, power=power)["features"]
        assert np.ptp(features - power * magnitude) < 1e-3
    coarse = np.round(samples * 32768).astype(np.int16)
    np.testing.assert_allclose(
        run("mfcc", coarse)["features"], run("mfcc", coarse / np.float32(32768))["features"], atol=1e-4
    )


def test_cepstral_coefficients_are_an_orthonormal_transform_of_the_bands() -> None:
    samples = _noise()
    bands = run("log-mel", samples)["features"].astype(np.float64)
    every = run("mfcc", samples, coefficients=40)["features"]
    np.testing.assert_allclose((every**2).sum(axis=1), (bands**2).sum(axis=1), rtol=1e-4)
    np.testing.assert_allclose(every[:, 0], bands.sum(axis=1) / np.sqrt(40), rtol=1e-4)
    third = [sum(row[n] * math.cos(math.pi * 3 * (n + 0.5) / 40) for n in range(40)) for row in bands]
    np.testing.assert_allclose(every[:, 3], np.sqrt(2 / 40) * np.array(third), atol=1e-3)
    larger = run("mfcc", samples, coefficients=2, orthonormal=False)["features"]
    np.testing.assert_allclose(larger, every[:, :2] * [np.sqrt(2), 1], rtol=1e-4)


def test_long_sound_and_several_channels_are_what_their_parts_are() -> None:
    samples = _noise(64_000)
    together = run("mfcc", np.stack([samples, samples[::-1]]))["features"]
    np.testing.assert_allclose(together[0], run("mfcc", samples)["features"], atol=1e-4)
    np.testing.assert_allclose(
        together[0, 7], run("mfcc", samples[7 * 160 : 7 * 160 + 400])["features"][0], atol=1e-4
    )


@pytest.mark.parametrize("count", [0, 1, 399])
def test_sound_shorter_than_a_window_has_no_rows(count: int) -> None:
    samples = np.zeros(count, np.float32)
    assert run("log-mel", samples)["features"].shape == (0, 40)
    assert run("mfcc", samples)["features"].shape == (0, 13)
    assert run("frame", samples, window=400, hop=160)["frames"].shape == (0, 400)


def test_silence_is_finite_and_nan_stays_in_its_frames() -> None:
    assert np.isfinite(run("mfcc", np.zeros(1600, np.int16))["features"]).all()
    samples = _noise(1600)
    samples[1500] = np.nan
    rows = np.isnan(run("mfcc", samples)["features"]).any(axis=1)
    assert rows.tolist() == [False] * 7 + [True]


@pytest.mark.parametrize(
    "settings",
    [
        {"high_hz": 9000.0},
        {"low_hz": 500.0, "high_hz": 400.0},
        {"bands": 0},
        {"hop": 0},
        {"scale": "bark"},
        {"fft_length": 256},
    ],
)
def test_settings_that_make_no_bands_are_one_clear_error(settings: dict[str, Any]) -> None:
    with pytest.raises(HybridgeError) as caught:
        run("log-mel", _noise(), **settings)
    assert caught.value.code is ErrorCode.INPUT_INVALID
    with pytest.raises(HybridgeError):
        run("mfcc", _noise(), coefficients=41)


@pytest.mark.tensorflow
def test_features_are_those_of_tensorflow() -> None:
    tf: Any = pytest.importorskip("tensorflow", reason="compares with tf.signal")
    samples = _noise(16_000)
    spectrum = tf.abs(tf.signal.stft(samples, 640, 320))
    weights = tf.signal.linear_to_mel_weight_matrix(40, 513, 16_000, 20, 4000)
    bands = tf.math.log(spectrum @ weights + 1e-6)
    settings = {"window": 640, "hop": 320, "high_hz": 4000.0}
    np.testing.assert_allclose(run("log-mel", samples, **settings)["features"], bands, atol=1e-4)
    expected = tf.signal.mfccs_from_log_mel_spectrograms(bands)[:, :10]
    np.testing.assert_allclose(
        run("mfcc", samples, coefficients=10, orthonormal=False, **settings)["features"], expected, atol=1e-4
    )

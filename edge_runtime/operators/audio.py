"""Operators on sound: samples to frames, mel bands and cepstral coefficients; NumPy is all they need.

Samples are float32 in -1..1, or int16, which is divided by 32768; of shape (n,), or (..., n) for several channels or a
batch. Lengths are counted in samples. Sound shorter than a window has no frames, and its features no rows; a frame with
a NaN has features of NaN.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.operators.registry import operator
from edge_runtime.tensor_spec import Array

__all__ = ["frame", "log_mel", "mfcc"]

_SLANEY_BREAK_HZ = 1000.0
_SLANEY_HZ_PER_MEL = 200.0 / 3.0
_SLANEY_LOG_STEP = np.log(6.4) / 27.0

# Multiplications below which OpenBLAS takes one thread.
_ONE_THREAD = 2**18


@operator(
    "frame", takes={"samples": "float32|int16[..., n]"}, gives={"frames": "float32[..., frames, window]"}
)
def frame(samples: Array, *, window: int, hop: int) -> Array:
    """Windows of so many samples, each `hop` after the one before; what is left at the end is dropped."""
    return _frames(samples, window, hop).copy()


@operator(
    "log-mel", takes={"samples": "float32|int16[..., n]"}, gives={"features": "float32[..., frames, bands]"}
)
def log_mel(
    samples: Array,
    *,
    sample_rate: int = 16_000,
    window: int = 400,
    hop: int = 160,
    fft_length: int = 0,
    bands: int = 40,
    low_hz: float = 20.0,
    high_hz: float = 8000.0,
    scale: str = "htk",
    power: float = 1.0,
    offset: float = 1e-6,
) -> Array:
    """The logarithm of a sound's energy in bands of the mel scale, frame by frame.

    A periodic Hann window, the magnitude of the Fourier transform to a power, triangles on the mel scale, and the
    natural logarithm: with `scale` htk as `tf.signal` computes it, with slaney as librosa's `melspectrogram`.

    Args:
        samples: The sound.
        sample_rate: Samples a second.
        window: Length of a frame.
        hop: From one frame to the next.
        fft_length: Of the Fourier transform; 0 for the least power of two that holds a window.
        bands: How many.
        low_hz: Where the lowest band begins,
        high_hz: and where the highest ends.
        scale: ``htk`` (2595 log10(1 + f/700), triangles on that scale with a peak of 1), or ``slaney`` (linear below
            1 kHz and logarithmic above, triangles in hertz with an area of 1).
        power: Of the magnitude: 1 for magnitude, 2 for power.
        offset: Added before the logarithm.

    Returns:
        float32 of shape (..., frames, bands).

    Raises:
        HybridgeError: `input-invalid` for settings that make no bands.
    """
    fft_length = fft_length or 1 << (window - 1).bit_length()
    if scale not in ("htk", "slaney"):
        raise HybridgeError(ErrorCode.INPUT_INVALID, "scale", received=scale, expected="htk or slaney")
    if not 0 <= low_hz < high_hz <= sample_rate / 2 or bands < 1 or fft_length < window:
        raise HybridgeError(
            ErrorCode.INPUT_INVALID,
            "mel bands",
            received=f"{bands} from {low_hz} to {high_hz} Hz, windows of {window}, fft_length {fft_length}",
            expected=f"one at least, rising within 0..{sample_rate / 2} Hz, and an fft_length that holds a window",
        )
    frames = _frames(samples, window, hop) * _hann(window)
    weights, first = _mel_weights(sample_rate, fft_length, bands, low_hz, high_hz, scale)
    transformed = np.fft.rfft(frames, fft_length)[..., first : first + len(weights)]
    # The absolute value of complex numbers guards against overflow, which costs more than the transform.
    spectrum = np.square(transformed.real, dtype=np.float32)
    spectrum += np.square(transformed.imag, dtype=np.float32)
    if power == 1.0:
        np.sqrt(spectrum, out=spectrum)
    elif power != 2.0:
        spectrum **= np.float32(power / 2)
    features = _product(spectrum, weights)
    features += np.float32(offset)
    with np.errstate(divide="ignore", invalid="ignore"):
        np.log(features, out=features)
    return features


@operator(
    "mfcc",
    takes={"samples": "float32|int16[..., n]"},
    gives={"features": "float32[..., frames, coefficients]"},
)
def mfcc(
    samples: Array,
    *,
    coefficients: int = 13,
    orthonormal: bool = True,
    sample_rate: int = 16_000,
    window: int = 400,
    hop: int = 160,
    fft_length: int = 0,
    bands: int = 40,
    low_hz: float = 20.0,
    high_hz: float = 8000.0,
    scale: str = "htk",
    power: float = 1.0,
    offset: float = 1e-6,
) -> Array:
    """Mel-frequency cepstral coefficients: the first of a discrete cosine transform (type II) of `log-mel`'s bands.

    MLPerf Tiny's keyword spotter takes 10 coefficients of 40 bands from 20 to 4000 Hz, window 640, hop 320, not
    orthonormal, of samples whose largest is 1.

    Args:
        samples: The sound.
        coefficients: How many of them, at most `bands`.
        orthonormal: Whether the first one is scaled as an orthonormal transform has it; HTK and
            `tf.signal.mfccs_from_log_mel_spectrograms` leave it larger by the square root of two.
        sample_rate: As for `log-mel`, like the settings that follow.
        window: Length of a frame.
        hop: From one frame to the next.
        fft_length: Of the Fourier transform.
        bands: How many mel bands.
        low_hz: Where the lowest begins.
        high_hz: Where the highest ends.
        scale: ``htk`` or ``slaney``.
        power: Of the magnitude.
        offset: Added before the logarithm.

    Returns:
        float32 of shape (..., frames, coefficients).
    """
    if not 1 <= coefficients <= bands:
        raise HybridgeError(
            ErrorCode.INPUT_INVALID,
            "coefficients",
            received=str(coefficients),
            expected=f"1 to {bands}, the number of bands",
        )
    features = log_mel(
        samples, sample_rate=sample_rate, window=window, hop=hop, fft_length=fft_length, bands=bands,
        low_hz=low_hz, high_hz=high_hz, scale=scale, power=power, offset=offset,
    )  # fmt: skip
    return _product(features, _cosines(bands, coefficients, orthonormal))


def _frames(samples: Array, window: int, hop: int) -> Array:
    """A view, or for int16 a copy, of shape (..., frames, window)."""
    if window < 1 or hop < 1 or samples.ndim < 1:
        raise HybridgeError(
            ErrorCode.INPUT_INVALID,
            "frames",
            received=f"window {window}, hop {hop}, samples of shape {samples.shape}",
            expected="a window and a hop of one sample at least, and an axis of samples",
        )
    sound = samples / np.float32(32768) if samples.dtype == np.int16 else np.asarray(samples, np.float32)
    if sound.shape[-1] < window:
        return np.empty((*sound.shape[:-1], 0, window), np.float32)
    windows: Array = np.lib.stride_tricks.sliding_window_view(sound, window, axis=-1)
    return windows[..., ::hop, :]


def _product(rows: Array, matrix: Array) -> Array:
    """Rows times a matrix, in parts so small that OpenBLAS does not spread them over threads.

    Where the cores are busy with other stages, waiting for those threads takes a hundred times as long as multiplying.
    """
    flat = rows.reshape(-1, rows.shape[-1])
    product = np.empty((len(flat), matrix.shape[1]), np.float32)
    step = max(1, _ONE_THREAD // matrix.size)
    for start in range(0, len(flat), step):
        np.matmul(flat[start : start + step], matrix, out=product[start : start + step])
    return product.reshape(*rows.shape[:-1], matrix.shape[1])


@lru_cache(maxsize=8)
def _hann(length: int) -> Array:
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)).astype(np.float32)


@lru_cache(maxsize=8)
def _mel_weights(
    sample_rate: int, fft_length: int, bands: int, low_hz: float, high_hz: float, scale: str
) -> tuple[Array, int]:
    """Triangles over the bins that any of them covers, float32 of shape (bins, bands), and the first of those bins."""
    bins = np.arange(fft_length // 2 + 1) * (sample_rate / fft_length)
    if scale == "htk":
        edges = np.linspace(_htk(low_hz), _htk(high_hz), bands + 2)
        places = _htk(bins)
    else:
        edges = _slaney_hz(np.linspace(_slaney(low_hz), _slaney(high_hz), bands + 2))
        places = bins
    rising = (places[:, np.newaxis] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - places[:, np.newaxis]) / (edges[2:] - edges[1:-1])
    weights = np.maximum(0, np.minimum(rising, falling))
    if scale == "slaney":
        weights *= 2 / (edges[2:] - edges[:-2])
    used = np.flatnonzero(weights.any(axis=1))
    first, stop = (int(used[0]), int(used[-1]) + 1) if used.size else (0, 1)
    return np.ascontiguousarray(weights[first:stop], np.float32), first


@lru_cache(maxsize=8)
def _cosines(bands: int, coefficients: int, orthonormal: bool) -> Array:
    places = np.pi / bands * (np.arange(bands)[:, np.newaxis] + 0.5) * np.arange(coefficients)
    cosines = np.sqrt(2 / bands) * np.cos(places)
    if orthonormal:
        cosines[:, 0] *= np.sqrt(0.5)
    matrix: Array = cosines.astype(np.float32)
    return matrix


def _htk(hertz: Array | float) -> Array:
    return np.asarray(2595 * np.log10(1 + np.asarray(hertz) / 700))


def _slaney(hertz: float) -> float:
    if hertz < _SLANEY_BREAK_HZ:
        return hertz / _SLANEY_HZ_PER_MEL
    start = _SLANEY_BREAK_HZ / _SLANEY_HZ_PER_MEL
    return float(start + np.log(hertz / _SLANEY_BREAK_HZ) / _SLANEY_LOG_STEP)


def _slaney_hz(mels: Array) -> Array:
    start = _SLANEY_BREAK_HZ / _SLANEY_HZ_PER_MEL
    above = _SLANEY_BREAK_HZ * np.exp(_SLANEY_LOG_STEP * (np.maximum(mels, start) - start))
    return np.where(mels < start, mels * _SLANEY_HZ_PER_MEL, above)

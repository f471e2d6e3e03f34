"""Spoken digits as DS-CNN of MLPerf Tiny takes them."""

from __future__ import annotations

import io
import wave
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import data_file
from edge_runtime.tensor_spec import Array

__all__ = ["spoken_digits"]


def spoken_digits() -> tuple[Array, Array]:
    """Half of two speakers' digits to calibrate on, and four speakers' to judge by, shape (n, 49, 10, 1)."""
    features = {path.stem: _features(path) for path in sorted(data_file("fsdd").glob("*.zip"))}
    speakers = sorted(features)
    calibration = np.concatenate([features[name] for name in speakers[:2]])[::2]
    judged = np.concatenate([features[name] for name in speakers[2:]])
    return calibration, judged


def _features(archive: Path) -> Array:
    """49 frames of 10 mel-frequency cepstral coefficients, as the reference training script computes them."""
    with zipfile.ZipFile(archive) as files:
        signals = [_signal(files.read(name)) for name in sorted(files.namelist()) if name.endswith(".wav")]
    signal = _tensorflow().signal
    spectra = abs(signal.stft(np.stack(signals), 480, 320))
    mel = signal.linear_to_mel_weight_matrix(40, spectra.shape[-1], 16000, 20.0, 4000.0)
    logs = _tensorflow().math.log(_tensorflow().tensordot(spectra, mel, 1) + 1e-6)
    coefficients = signal.mfccs_from_log_mel_spectrograms(logs)[..., :10]
    return np.asarray(coefficients, np.float32)[..., np.newaxis]


def _signal(content: bytes) -> Array:
    """One second at 16 kHz, its loudest sample 1."""
    with wave.open(io.BytesIO(content)) as file:
        rate = file.getframerate()
        recorded = np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32)
    seconds = np.arange(16000) / 16000
    signal = np.interp(seconds, np.arange(len(recorded)) / rate, recorded, right=0.0)
    scaled: Array = (signal / max(float(np.abs(signal).max()), 1.0)).astype(np.float32)
    return scaled


def _tensorflow() -> Any:
    import tensorflow

    return tensorflow

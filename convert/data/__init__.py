"""Samples for calibration, training and judgement, from arrays, files, folders of images and functions."""

from convert.data.dataset import LABEL, Dataset, check_varied
from convert.data.generated import generate
from convert.data.loading import DataSource, load_dataset
from convert.data.scale import scale_warnings

__all__ = [
    "LABEL",
    "DataSource",
    "Dataset",
    "check_varied",
    "generate",
    "load_dataset",
    "scale_warnings",
]

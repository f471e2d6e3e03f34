"""Samples for calibration, training and judgement, from arrays, files, folders of images and functions."""

from convert.data.dataset import LABEL, Dataset, DataSource, generate, load_dataset

__all__ = ["LABEL", "DataSource", "Dataset", "generate", "load_dataset"]

"""The reading part of the sign translator beside RapidOCR: time, memory and characters read, on the same images."""

from pathlib import Path

__all__ = ["rapidocr_reader_path"]


def rapidocr_reader_path() -> Path:
    """The script that the peer's own Python runs; it cannot import this package."""
    return Path(__file__).with_name("rapidocr_reader.py")

"""What a conversion lost: the converted bytes run on the device runtime, beside the source, on the same samples."""

from convert.verification.accuracy import measure_accuracy
from convert.verification.confusion import Confusion, Worsened, measure_confusion
from convert.verification.drop import Drop, measure_drop
from convert.verification.parity import (
    OutputParity,
    check_informative,
    check_parity,
    measure_outputs,
    measure_parity,
)
from convert.verification.running import run_converted

__all__ = [
    "Confusion",
    "Drop",
    "OutputParity",
    "Worsened",
    "check_informative",
    "check_parity",
    "measure_accuracy",
    "measure_confusion",
    "measure_drop",
    "measure_outputs",
    "measure_parity",
    "run_converted",
]

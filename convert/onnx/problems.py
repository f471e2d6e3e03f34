"""What of an ONNX model cannot be imported, collected over the whole graph and reported at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = ["Problem", "Unsupported", "UnsupportedInside", "invalid", "refusal"]

_SHOWN = 12


class Unsupported(Exception):  # noqa: N818 - it becomes a `Problem`, and never reaches a caller
    """Raised while one node is imported.

    Args:
        reason: Why it cannot be.
        fix: The smallest change of the model, or of how it is converted, that would help.
    """

    def __init__(self, reason: str, fix: str):
        super().__init__(reason)
        self.reason = reason
        self.fix = fix


@dataclass(frozen=True)
class Problem:
    """One node that cannot be imported.

    Attributes:
        operator: Its operator, with the domain if it is not ONNX's own.
        node: Its name, or that of its first output.
        reason: Why.
        fix: The smallest change that would help.
    """

    operator: str
    node: str
    reason: str
    fix: str

    def __str__(self) -> str:
        return f"{self.operator} '{self.node}': {self.reason}; {self.fix}"


class UnsupportedInside(Unsupported):
    """Raised while the body of a loop or a branch is imported.

    Args:
        problems: Those of the nodes inside it.
    """

    def __init__(self, problems: Sequence[Problem]):
        super().__init__("a node inside it cannot be converted", "see that node")
        self.problems = tuple(problems)


def refusal(problems: Sequence[Problem], name: str) -> HybridgeError:
    """The error that names all of them, those of one kind together."""
    alike: dict[tuple[str, str, str], list[str]] = {}
    for problem in problems:
        alike.setdefault((problem.operator, problem.reason, problem.fix), []).append(problem.node)
    lines = []
    for (operator, reason, fix), nodes in alike.items():
        shown = ", ".join(f"'{node}'" for node in nodes[:3])
        more = f" and {len(nodes) - 3} more" if len(nodes) > 3 else ""
        lines.append(f"{operator} {shown}{more}: {reason}; {fix}")
    hidden = f"\n  and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
    return HybridgeError(
        ErrorCode.CONVERSION_FAILED,
        f"source model '{name}'",
        received=f"{len(problems)} node{'s' if len(problems) > 1 else ''} that cannot be converted\n  "
        + "\n  ".join(lines[:_SHOWN])
        + hidden,
        expected="operators, types and shapes that the TFLite runtime can compute",
        fix="change the model where each says, or leave that part to a chain's operator",
    )


def invalid(name: str, *, received: str, expected: str, fix: str) -> HybridgeError:
    """The error for a file that is no ONNX model, or not a sound one."""
    return HybridgeError(
        ErrorCode.SOURCE_INVALID, f"source model '{name}'", received=received, expected=expected, fix=fix
    )

"""The one error of hybridge, its codes, and what kind of failure each code is.

An error knows nothing of how it travels: the gRPC endpoint maps a `Kind` to a status and the command maps it
to an exit code, each in its own room.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = ["ErrorCode", "HybridgeError", "Kind", "missing_extra"]


class Kind(StrEnum):
    """What sort of failure a code stands for; transports map kinds, never single codes."""

    INVALID = "invalid"
    NOT_FOUND = "not-found"
    EXISTS = "exists"
    DAMAGED = "damaged"
    UNAVAILABLE = "unavailable"
    DEADLINE = "deadline"
    EXHAUSTED = "exhausted"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    MISSING_DEPENDENCY = "missing-dependency"
    CHECK_FAILED = "check-failed"
    INTERNAL = "internal"


class ErrorCode(StrEnum):
    """Stable names for everything that can go wrong; a released code is never renamed."""

    BUNDLE_DAMAGED = "bundle-damaged"
    BUNDLE_DIGEST = "bundle-digest"
    BUNDLE_INVALID = "bundle-invalid"
    BUNDLE_TOO_NEW = "bundle-too-new"
    FILE_NOT_FOUND = "file-not-found"
    FILE_EXISTS = "file-exists"
    FILE_UNWRITABLE = "file-unwritable"
    MODEL_INVALID = "model-invalid"
    MODEL_CLOSED = "model-closed"
    MODEL_UNKNOWN = "model-unknown"
    INPUT_MISSING = "input-missing"
    INPUT_UNKNOWN = "input-unknown"
    INPUT_DTYPE = "input-dtype"
    INPUT_SHAPE = "input-shape"
    INPUT_INVALID = "input-invalid"
    OUTPUT_UNKNOWN = "output-unknown"
    CHAIN_INVALID = "chain-invalid"
    CHAIN_LATE = "chain-late"
    MEMORY_BUDGET = "memory-budget"
    SWAP_REFUSED = "swap-refused"
    OPERATOR_UNKNOWN = "operator-unknown"
    OPERATOR_FAILED = "operator-failed"
    INVOKE_FAILED = "invoke-failed"
    CONFIDENCE_INVALID = "confidence-invalid"
    FALLBACK_UNKNOWN = "fallback-unknown"
    CLOUD_UNAVAILABLE = "cloud-unavailable"
    CLOUD_DEADLINE = "cloud-deadline"
    CLOUD_REFUSED = "cloud-refused"
    CLOUD_FAILED = "cloud-failed"
    CLOUD_OVERLOADED = "cloud-overloaded"
    UNAUTHENTICATED = "unauthenticated"
    NOT_PERMITTED = "not-permitted"
    CREDENTIALS_INVALID = "credentials-invalid"
    MESSAGE_TOO_LARGE = "message-too-large"
    OUTBOX_FULL = "outbox-full"
    OUTBOX_DAMAGED = "outbox-damaged"
    ADDRESS_IN_USE = "address-in-use"
    DEVICE_UNAVAILABLE = "device-unavailable"
    SOURCE_INVALID = "source-invalid"
    DATA_INVALID = "data-invalid"
    RECIPE_UNKNOWN = "recipe-unknown"
    CONVERSION_FAILED = "conversion-failed"
    PARITY_FAILED = "parity-failed"
    BUDGET_MISSED = "budget-missed"
    TRAINING_FAILED = "training-failed"
    NOT_TRAINABLE = "not-trainable"
    FEDERATION_FAILED = "federation-failed"
    EXTRA_MISSING = "extra-missing"
    USAGE = "usage"
    INTERNAL = "internal"

    @property
    def kind(self) -> Kind:
        """The kind of failure this code stands for."""
        return _KINDS.get(self, Kind.INVALID)


# Codes not named here are Kind.INVALID: the caller gave something that cannot be used.
_KINDS = {
    ErrorCode.BUNDLE_DAMAGED: Kind.DAMAGED,
    ErrorCode.BUNDLE_DIGEST: Kind.DAMAGED,
    ErrorCode.FILE_NOT_FOUND: Kind.NOT_FOUND,
    ErrorCode.FILE_EXISTS: Kind.EXISTS,
    ErrorCode.FILE_UNWRITABLE: Kind.UNAVAILABLE,
    ErrorCode.MODEL_UNKNOWN: Kind.NOT_FOUND,
    ErrorCode.CHAIN_LATE: Kind.DEADLINE,
    ErrorCode.MEMORY_BUDGET: Kind.EXHAUSTED,
    ErrorCode.SWAP_REFUSED: Kind.CHECK_FAILED,
    ErrorCode.OPERATOR_FAILED: Kind.INTERNAL,
    ErrorCode.INVOKE_FAILED: Kind.INTERNAL,
    ErrorCode.CLOUD_UNAVAILABLE: Kind.UNAVAILABLE,
    ErrorCode.CLOUD_DEADLINE: Kind.DEADLINE,
    ErrorCode.CLOUD_FAILED: Kind.UNAVAILABLE,
    ErrorCode.CLOUD_OVERLOADED: Kind.EXHAUSTED,
    ErrorCode.UNAUTHENTICATED: Kind.UNAUTHENTICATED,
    ErrorCode.NOT_PERMITTED: Kind.FORBIDDEN,
    ErrorCode.MESSAGE_TOO_LARGE: Kind.EXHAUSTED,
    ErrorCode.OUTBOX_FULL: Kind.EXHAUSTED,
    ErrorCode.OUTBOX_DAMAGED: Kind.DAMAGED,
    ErrorCode.ADDRESS_IN_USE: Kind.UNAVAILABLE,
    ErrorCode.DEVICE_UNAVAILABLE: Kind.UNAVAILABLE,
    ErrorCode.CONVERSION_FAILED: Kind.CHECK_FAILED,
    ErrorCode.PARITY_FAILED: Kind.CHECK_FAILED,
    ErrorCode.BUDGET_MISSED: Kind.CHECK_FAILED,
    ErrorCode.TRAINING_FAILED: Kind.CHECK_FAILED,
    ErrorCode.FEDERATION_FAILED: Kind.INTERNAL,
    ErrorCode.EXTRA_MISSING: Kind.MISSING_DEPENDENCY,
    ErrorCode.INTERNAL: Kind.INTERNAL,
}


class HybridgeError(Exception):
    """Every failure that hybridge reports: a stable code and one sentence a person can act on.

    Args:
        code: What went wrong, as a stable name.
        what: The thing that is wrong, such as ``"input 'image' of model 'digits'"``.
        received: What was found or given.
        expected: What would have been right.
        fix: What to do about it, as an imperative sentence without its full stop.
        retry_after_s: Seconds after which trying again makes sense, where that is known.

    Example:
        >>> raise HybridgeError(ErrorCode.INPUT_DTYPE, "input 'image'", received="float64",
        ...                     expected="float32", fix="cast it with .astype(numpy.float32)")
        Traceback (most recent call last):
        edge_runtime.errors.HybridgeError: input 'image': received float64, expected float32; cast it with ...
    """

    def __init__(
        self,
        code: ErrorCode,
        what: str,
        *,
        received: str = "",
        expected: str = "",
        fix: str = "",
        retry_after_s: float | None = None,
    ):
        self.code = code
        self.what = what
        self.received = received
        self.expected = expected
        self.fix = fix
        self.retry_after_s = retry_after_s
        super().__init__(self.message)

    @property
    def message(self) -> str:
        """The sentence: what, received, expected, fix."""
        facts = [
            f"{verb} {text}"
            for verb, text in (("received", self.received), ("expected", self.expected))
            if text
        ]
        sentence = f"{self.what}: {', '.join(facts)}" if facts else self.what
        return f"{sentence}; {self.fix}" if self.fix else sentence

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments do not survive the default pickling, and errors cross process borders.
        return (
            _rebuild,
            (self.code, self.what, self.received, self.expected, self.fix, self.retry_after_s),
        )


def _rebuild(
    code: ErrorCode, what: str, received: str, expected: str, fix: str, retry_after_s: float | None
) -> HybridgeError:
    return HybridgeError(
        code, what, received=received, expected=expected, fix=fix, retry_after_s=retry_after_s
    )


def missing_extra(extra: str, module: str) -> HybridgeError:
    """The error for a library that an optional part of hybridge needs and the environment lacks.

    Args:
        extra: Name of the extra that installs it, such as ``"convert"``.
        module: Name of the import that failed.
    """
    return HybridgeError(
        ErrorCode.EXTRA_MISSING,
        f"this needs the '{extra}' extra, and its module '{module}' is not installed",
        fix=f"run: pip install 'hybridge[{extra}]'",
    )

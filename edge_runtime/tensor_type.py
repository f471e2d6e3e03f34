"""Types of a chain's tensors, as operators declare them and chains are checked with.

A type is written ``dtype[sizes]``: ``uint8[height, width, 3]``, ``T[h, w, c]``, ``uint8|float32[n]``, ``text[...]``.
A capital letter is any dtype, the same wherever the letter occurs in one declaration; a lower-case name is any size,
the same wherever it occurs; ``...`` is any number of axes. A trailing ``*`` makes it items: a list of such arrays,
which may differ in the sizes that have names. An empty text is anything at all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import TensorSpec

__all__ = ["ANYTHING", "Bindings", "TensorType"]

_FORM = re.compile(r"(?P<dtype>[A-Za-z0-9_|]+)\[(?P<sizes>[^\[\]]*)\](?P<items>\*?)")
_SIZE = re.compile(r"\.\.\.|[0-9]+|[a-z_][a-z0-9_]*")
_REST = "..."
_DTYPES = {
    "bool", "float16", "float32", "float64", "complex64", "complex128", "bytes", "text",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TensorType:
    """What is known of a tensor before there is one.

    Attributes:
        dtype: A NumPy dtype's name, ``"text"``, several with ``|`` between them, a capital letter, or None for any.
        shape: Sizes: a number, a name for one that is not known, ``"..."`` for any number of axes; None for any shape.
        items: Whether it is a list of such arrays; None when it may be either.
    """

    dtype: str | None = None
    shape: tuple[int | str, ...] | None = None
    items: bool | None = None

    @classmethod
    def parse(cls, text: str) -> TensorType:
        """Reads a type as it is written in a declaration.

        Raises:
            HybridgeError: `chain-invalid` for text that is no type.
        """
        if not text:
            return ANYTHING
        form = _FORM.fullmatch(text)
        listed = form["sizes"].strip() if form else ""
        sizes = [size.strip() for size in listed.split(",")] if listed else []
        if (
            form is None
            or not (_is_letter(form["dtype"]) or _DTYPES.issuperset(form["dtype"].split("|")))
            or not all(_SIZE.fullmatch(size) for size in sizes)
            or sizes.count(_REST) > 1
        ):
            raise HybridgeError(
                ErrorCode.CHAIN_INVALID,
                "tensor type",
                received=f"'{text}'",
                expected="dtype[sizes], such as uint8[height, width, 3]",
            )
        shape = tuple(int(size) if size.isdigit() else size for size in sizes)
        return cls(form["dtype"], shape, bool(form["items"]))

    @classmethod
    def from_spec(cls, spec: TensorSpec) -> TensorType:
        """The type of a model's tensor; a quantised one also takes real values."""
        dtype = "bytes" if spec.dtype == "string" else spec.dtype
        return cls(f"{dtype}|float32" if spec.quantization else dtype, spec.shape, items=False)

    def item(self) -> TensorType:
        """The type of one of its items: of a list, or along the first axis of an array."""
        if self.items or self.shape is None:
            return replace(self, items=False)
        if not self.shape or self.shape[0] == _REST:
            return TensorType(self.dtype, None, items=False)
        return TensorType(self.dtype, self.shape[1:], items=False)

    def is_within(self, other: TensorType) -> bool:
        """Whether every tensor of this type, of known dtypes and rank, is also one of the other."""
        if self.dtype is None or self.shape is None or other.dtype is None or other.shape is None:
            return self == other
        return (
            _alternatives(self.dtype) <= _alternatives(other.dtype)
            and len(self.shape) == len(other.shape)
            and all(
                isinstance(wide, str) or wide == own
                for own, wide in zip(self.shape, other.shape, strict=True)
            )
        )

    def __str__(self) -> str:
        if self == ANYTHING:
            return "anything"
        shape = "..." if self.shape is None else ", ".join(map(str, self.shape))
        return f"{self.dtype or 'any'}[{shape}]{'*' if self.items else ''}"


ANYTHING = TensorType()


@dataclass(slots=True)
class Bindings:
    """What the names in one declaration stand for, found by holding the tensors that are given against it.

    Args:
        settings: Values that names in the declaration already have, such as an operator's settings.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    _sizes: dict[str, int] = field(default_factory=dict)
    _dtypes: dict[str, str] = field(default_factory=dict)
    _rests: list[tuple[int | str, ...]] = field(default_factory=list)

    def mismatch(self, declared: TensorType, given: TensorType) -> str | None:
        """Why a tensor of type `given` cannot be what is declared, or None; learns what the names stand for."""
        if declared.items is not None and given.items is not None and declared.items != given.items:
            kinds = {True: "items", False: "one array"}
            return f"{kinds[given.items]} ({given}), expected {kinds[declared.items]} ({declared})"
        if not self._dtype_meets(declared.dtype, given.dtype) or not self._shape_meets(declared, given):
            return f"{given}, expected {self.resolve(declared)}"
        return None

    def resolve(self, declared: TensorType) -> TensorType:
        """A declared type with all that is known put in."""
        dtype = declared.dtype
        if dtype is not None and _is_letter(dtype):
            dtype = self._dtypes.get(dtype)
        shape = declared.shape
        if shape is not None and _REST in shape and self._rests:
            at = shape.index(_REST)
            shape = (*shape[:at], *self._rests[0], *shape[at + 1 :])
        if shape is not None:
            shape = tuple(size if isinstance(size, int) else self._known(size) or size for size in shape)
        return TensorType(dtype, shape, declared.items)

    def _known(self, name: str) -> int | None:
        setting = self.settings.get(name)
        return setting if type(setting) is int and setting >= 0 else self._sizes.get(name)

    def _dtype_meets(self, declared: str | None, given: str | None) -> bool:
        if declared is None or given is None or _is_letter(given):
            return True
        if _is_letter(declared):
            known = self._dtypes.setdefault(declared, given)
            return bool(_alternatives(known) & _alternatives(given))
        return bool(_alternatives(declared) & _alternatives(given))

    def _shape_meets(self, declared: TensorType, given: TensorType) -> bool:
        want, got = declared.shape, given.shape
        if want is None or got is None or _REST in got:
            return True
        if _REST in want:
            at = want.index(_REST)
            rest = len(got) - (len(want) - 1)
            if rest < 0:
                return False
            if not declared.items:
                self._rests.append(got[at : at + rest])
            want = (*want[:at], *got[at : at + rest], *want[at + 1 :])
        if len(want) != len(got):
            return False
        # Sizes of items that have names may differ from item to item: they say nothing about each other.
        return all(
            self._size_meets(size, have, bound=not declared.items)
            for size, have in zip(want, got, strict=True)
        )

    def _size_meets(self, want: int | str, got: int | str, *, bound: bool) -> bool:
        if isinstance(got, str):
            return True
        if isinstance(want, int):
            return want == got
        known = self._known(want)
        if known is not None:
            return known == got
        if bound:
            self._sizes[want] = got
        return True


def _is_letter(dtype: str) -> bool:
    return len(dtype) == 1 and dtype.isupper()


def _alternatives(dtype: str) -> set[str]:
    return set(dtype.split("|"))

"""Sums of products by the names of axes, and determinants."""

from __future__ import annotations

import numpy as np

from convert.libraries import load_library
from convert.onnx.carriers import wrapped
from convert.onnx.node import Node
from convert.onnx.operators.elementwise import broadcast
from convert.onnx.operators.gathering import known_sizes
from convert.onnx.operators.products import matrix_product
from convert.onnx.operators.reduction import reduce_over
from convert.onnx.operators.shape import reshaped
from convert.onnx.problems import Unsupported
from convert.onnx.registry import operator
from convert.onnx.value import Value

__all__: list[str] = []

tf = load_library("tensorflow")

# A determinant is computed one column after the other, and each is part of the model.
_COLUMNS = 64


@operator("Einsum")
def einsum(node: Node, *values: Value) -> Value:
    """Products of elements summed over axes that the result does not have, by an equation as numpy's."""
    terms, result = _parsed(node.attribute("equation"), [value.rank for value in values])
    pairs = [_diagonal(value, term) for value, term in zip(values, terms, strict=True)]
    pairs = _without_ones(pairs)
    while len(pairs) > 1:
        later = set(result).union(*(term for _, term in pairs[2:]))
        pairs = [_contracted(pairs[0], pairs[1], later), *pairs[2:]]
    value, term = _summed(*pairs[0], set(result))
    # Axes of which all operands have size one are gone.
    missing = [letter for letter in result if letter not in term]
    value = reshaped(value, [1] * len(missing) + known_sizes(value))
    term = [*missing, *term]
    return value.transposed([term.index(letter) for letter in result])


def _parsed(equation: str, ranks: list[int]) -> tuple[list[list[str]], list[str]]:
    """The names of the axes of each operand, and of the result; those of an ellipsis are called by numbers."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    texts = left.split(",")
    spread = max(
        (
            rank - len(text.replace("...", ""))
            for text, rank in zip(texts, ranks, strict=True)
            if "..." in text
        ),
        default=0,
    )

    def letters(text: str, count: int) -> list[str]:
        before, dots, after = text.partition("...")
        names = [str(index) for index in range(spread - count, spread)] if dots else []
        return [*before, *names, *after]

    terms = [
        letters(text, rank - len(text.replace("...", ""))) for text, rank in zip(texts, ranks, strict=True)
    ]
    if arrow:
        return terms, letters(right, spread)
    written = [letter for term in terms for letter in term]
    once = sorted(letter for letter in set(written) if letter.isalpha() and written.count(letter) == 1)
    return terms, [str(index) for index in range(spread)] + once


def _diagonal(value: Value, term: list[str]) -> tuple[Value, list[str]]:
    """The value with one axis for each name, where a name occurs several times."""
    for letter in list(dict.fromkeys(term)):
        while term.count(letter) > 1:
            first = term.index(letter)
            second = term.index(letter, first + 1)
            rest = [axis for axis in range(len(term)) if axis not in (first, second)]
            value = value.transposed([first, second, *rest])
            size, *others = known_sizes(value)[1:]
            # Elements of a diagonal are one more than a row apart.
            flat = reshaped(value, [size * size, *others]).tensor
            value = Value.of(tf.gather(flat, np.arange(size, dtype=np.int32) * (size + 1)), value.dtype)
            term = [letter, *(term[axis] for axis in rest)]
    return value, term


def _without_ones(pairs: list[tuple[Value, list[str]]]) -> list[tuple[Value, list[str]]]:
    """Operands without their axes of size one, over which they broadcast."""
    kept = []
    for value, term in pairs:
        sizes = known_sizes(value)
        wide = [axis for axis, size in enumerate(sizes) if size != 1]
        kept.append((reshaped(value, [sizes[axis] for axis in wide]), [term[axis] for axis in wide]))
    return kept


def _summed(value: Value, term: list[str], wanted: set[str]) -> tuple[Value, list[str]]:
    gone = [axis for axis, letter in enumerate(term) if letter not in wanted]
    if not gone:
        return value, term
    return reduce_over("ReduceSum", value, gone, keepdims=False), [each for each in term if each in wanted]


def _contracted(
    left: tuple[Value, list[str]], right: tuple[Value, list[str]], later: set[str]
) -> tuple[Value, list[str]]:
    """The product of two operands, summed over what neither the result nor another operand needs."""
    a, a_term = _summed(*left, later.union(right[1]))
    b, b_term = _summed(*right, later.union(left[1]))
    shared = [letter for letter in a_term if letter in b_term]
    batch = [letter for letter in shared if letter in later]
    summed = [letter for letter in shared if letter not in later]
    rows = [letter for letter in a_term if letter not in shared]
    columns = [letter for letter in b_term if letter not in shared]
    sizes = dict(zip([*a_term, *b_term], [*known_sizes(a), *known_sizes(b)], strict=True))
    result = [*batch, *rows, *columns]
    if not summed or a.dtype.kind != "f":
        # Axes are laid side by side, and elements multiplied.
        every = [*result, *summed]
        product = broadcast(tf.multiply, _spread(a, a_term, every), _spread(b, b_term, every))
        return _summed(product, every, set(result))

    def grouped(value: Value, term: list[str], *groups: list[str]) -> Value:
        value = value.transposed([term.index(letter) for group in groups for letter in group])
        return reshaped(value, [int(np.prod([sizes[letter] for letter in group])) for group in groups])

    groups = (batch, rows, summed), (batch, summed, columns)
    product = matrix_product(
        grouped(a, a_term, *groups[0][not batch :]), grouped(b, b_term, *groups[1][not batch :])
    )
    return reshaped(product, [sizes[letter] for letter in result]), result


def _spread(value: Value, term: list[str], every: list[str]) -> Value:
    value = value.transposed(sorted(range(len(term)), key=lambda axis: every.index(term[axis])))
    sizes = iter(known_sizes(value))
    return reshaped(value, [next(sizes) if letter in term else 1 for letter in every])


@operator("Det")
def determinant(_node: Node, x: Value) -> Value:
    """The determinants of square matrices, by elimination with pivots (Golub, Van Loan: Matrix Computations, 3.4)."""
    *batch, size, _ = known_sizes(x)
    if size > _COLUMNS:
        raise Unsupported(f"the determinant of {size} columns", f"use matrices of at most {_COLUMNS}")
    matrix = tf.reshape(x.tensor, [-1, size, size])
    result = tf.ones_like(matrix[:, 0, 0])
    for columns in range(size, 2, -1):
        column = matrix[:, :, 0]
        place = tf.argmax(tf.abs(column), 1, output_type=tf.int32)
        chosen = tf.one_hot(place, columns, dtype=matrix.dtype)
        row = tf.matmul(chosen[:, tf.newaxis], matrix)[:, 0]
        pivot = row[:, 0]
        # The first row takes the place of the one with the pivot, which changes the sign unless it is that one.
        result = result * tf.where(tf.equal(place, 0), pivot, -pivot)
        below = tf.where(chosen[:, 1:, tf.newaxis] > 0, matrix[:, :1], matrix[:, 1:])
        factors = (
            below[:, :, :1]
            / tf.where(tf.equal(pivot, 0), tf.ones_like(pivot), pivot)[:, tf.newaxis, tf.newaxis]
        )
        matrix = below[:, :, 1:] - factors * row[:, tf.newaxis, 1:]
    last = matrix[:, 0, 0]
    if size > 1:
        last = last * matrix[:, 1, 1] - matrix[:, 0, 1] * matrix[:, 1, 0]
    return Value.of(wrapped(tf.reshape(result * last, batch), x.dtype), x.dtype)

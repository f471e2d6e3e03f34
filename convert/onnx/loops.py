"""What loops on a device write their results to.

A device has no list of tensors that grows: the converter makes of TensorFlow's one a concatenation of all that there is,
at every step. A loop writes to a tensor of the final size instead.
"""

from __future__ import annotations

from typing import Any

from convert.libraries import load_library

__all__ = ["room_for", "written"]


def written(buffer: Any, row: Any, index: Any) -> Any:
    """The buffer with a row in the place of the one at an index.

    Args:
        buffer: Of shape (rows, ...).
        row: Of shape (...).
        index: An int32 scalar.
    """
    tensorflow = load_library("tensorflow")
    if tensorflow.executing_eagerly():
        return tensorflow.tensor_scatter_nd_update(buffer, tensorflow.reshape(index, [1, 1]), row[None])
    # What becomes DYNAMIC_UPDATE_SLICE, which copies one row; TensorFlow has no public name for it.
    from tensorflow.compiler.tf2xla.ops import gen_xla_ops

    start = tensorflow.stack([index, *[0] * (buffer.shape.rank - 1)])
    return gen_xla_ops.xla_dynamic_update_slice(input=buffer, update=row[None], indices=start)


def room_for(source: Any, size: int) -> Any:
    """A tensor whose last axis has another size, to be written to; what is in it is of no meaning.

    It is made of a computed tensor: the converter would write out a constant, as large as the result, into the file.
    """
    tensorflow = load_library("tensorflow")
    given = int(source.shape[-1])
    if given < size:
        source = tensorflow.tile(source, [*[1] * (source.shape.rank - 1), -(-size // given)])
    return source[..., :size]

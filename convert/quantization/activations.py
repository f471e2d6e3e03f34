"""What a float model computes on the way, read tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from convert.libraries import load_library
from convert.quantization.quiet import quiet
from edge_runtime.tensor_spec import Array

__all__ = ["read_tensors"]


def read_tensors(
    content: bytes, samples: Iterable[Mapping[str, Array]], names: Sequence[str]
) -> Iterator[dict[str, Array]]:
    """Values of these tensors of the main graph for each sample.

    Args:
        content: A float `.tflite`.
        samples: Inputs of the model, an array for each name.
        names: Of tensors; those that the main graph does not have are left out.

    Yields:
        An array for each name, valid until the next is asked for.
    """
    with quiet():  # it warns that every tensor takes memory, which is what is asked for
        interpreter = load_library("ai_edge_litert.interpreter").Interpreter(
            model_content=content, num_threads=1, experimental_preserve_all_tensors=True
        )
    interpreter.allocate_tensors()
    index_of = {detail["name"]: detail["index"] for detail in interpreter.get_tensor_details()}
    wanted = {name: index_of[name] for name in names if name in index_of}
    runner = interpreter.get_signature_runner()
    for sample in samples:
        runner(**sample)
        yield {name: interpreter.get_tensor(index) for name, index in wanted.items()}

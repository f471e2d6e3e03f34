"""y = x + 1 bound to Triton by PyTriton: ``pytriton_plus_one.py PORT HTTP_PORT FUNCTIONS``."""

import sys
from typing import Any

import numpy as np
from pytriton.decorators import batch  # type: ignore[import-not-found]
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor  # type: ignore[import-not-found]
from pytriton.triton import Triton, TritonConfig  # type: ignore[import-not-found]

_ONE = np.float32(1)


@batch  # type: ignore[untyped-decorator]
def _plus_one(x: Any) -> list[Any]:
    return [x + _ONE]


def main() -> None:
    """Serves until it is stopped."""
    port, http_port, functions = map(int, sys.argv[1:])
    triton = Triton(
        config=TritonConfig(
            http_address="127.0.0.1",
            http_port=http_port,
            grpc_address="127.0.0.1",
            grpc_port=port,
            allow_metrics=False,
            log_verbose=0,
        )
    )
    with triton:
        triton.bind(
            model_name="plus-one",
            infer_func=[_plus_one] * functions,
            inputs=[Tensor(name="x", dtype=np.float32, shape=(-1,))],
            outputs=[Tensor(name="y", dtype=np.float32, shape=(-1,))],
            config=ModelConfig(max_batch_size=32, batcher=DynamicBatcher()),
        )
        triton.serve()


if __name__ == "__main__":
    main()

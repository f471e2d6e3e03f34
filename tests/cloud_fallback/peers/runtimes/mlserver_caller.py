"""What MLServer has for its clients: stub, converters, codecs and types; run by its own Python.

Takes the addresses for gRPC and for REST, then a line of JSON for each call, and answers it with one: its `result`, or
the `status` and `details` of a refusal.
"""

import json
import sys
import urllib.error
import urllib.request
from typing import Any

import grpc
import numpy as np
import pandas as pd  # type: ignore[import-untyped]
from mlserver import types  # type: ignore[import-not-found]
from mlserver.codecs import NumpyCodec, NumpyRequestCodec, PandasCodec, StringCodec  # type: ignore[import-not-found]
from mlserver.grpc import converters  # type: ignore[import-not-found]
from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub  # type: ignore[import-not-found]

_TIMEOUT_S = 20.0


class Caller:
    """Asks an endpoint; every method is a call.

    Args:
        address: Where gRPC is.
        rest_address: Where REST is, as a URL.
    """

    def __init__(self, address: str, rest_address: str):
        self._stub = GRPCInferenceServiceStub(grpc.insecure_channel(address))
        self._rest_address = rest_address

    def health(self) -> Any:
        """Whether it lives, and whether it is ready."""
        return [
            self._rpc("ServerLive", pb.ServerLiveRequest()).live,
            self._rpc("ServerReady", pb.ServerReadyRequest()).ready,
        ]

    def server(self) -> Any:
        """What the endpoint says of itself over gRPC."""
        said = self._rpc("ServerMetadata", pb.ServerMetadataRequest())
        return converters.ServerMetadataResponseConverter.to_types(said).model_dump()

    def metadata(self, model: str, version: str = "") -> Any:
        """What a model takes and gives, over gRPC."""
        said = self._rpc("ModelMetadata", pb.ModelMetadataRequest(name=model, version=version))
        return converters.ModelMetadataResponseConverter.to_types(said).model_dump()

    def ready(self, model: str, version: str = "") -> Any:
        """Whether a model is ready, over gRPC."""
        return self._rpc("ModelReady", pb.ModelReadyRequest(name=model, version=version)).ready

    def index(self) -> Any:
        """All models, over gRPC."""
        said = self._rpc("RepositoryIndex", pb.RepositoryIndexRequest())
        return [
            {"name": each.name, "version": each.version, "state": each.state, "reason": each.reason}
            for each in said.models
        ]

    def load(self, model: str) -> None:
        """Loads a model, over gRPC."""
        self._rpc("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name=model))

    def unload(self, model: str) -> None:
        """Unloads a model, over gRPC."""
        self._rpc("RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name=model))

    def rest(self, path: str, parsed_as: str, body: Any = None, method: str = "GET") -> Any:
        """What is at a path of REST: as it is, and what is left of it in a type of MLServer's that takes no other."""
        text = self._http(path, body, method)
        parsed = getattr(types, parsed_as).model_validate_json(text, strict=True)
        return {"said": json.loads(text), "parsed": json.loads(parsed.model_dump_json(exclude_none=False))}

    def post(self, path: str) -> str:
        """Asks for something to be done, over REST."""
        return self._http(path, {}, "POST")

    def answer(self, model: str, request: Any, wire: str, version: str = "", token: str = "") -> Any:
        """The answer to a request that is written as JSON, whole."""
        parsed = types.InferenceRequest.model_validate(request)
        return json.loads(self._ask(model, parsed, wire, version, token).model_dump_json())

    def numpy(self, model: str, name: str, dtype: str, values: Any, wire: str) -> Any:
        """An array in and an array out, by `NumpyCodec`."""
        request = types.InferenceRequest(inputs=[NumpyCodec.encode_input(name, np.array(values, dtype))])
        (output,) = self._ask(model, request, wire).outputs
        return _described(NumpyCodec.decode_output(output))

    def numpy_request(self, model: str, dtype: str, values: Any, wire: str) -> Any:
        """The same by `NumpyRequestCodec`, which calls the input `input-1`."""
        request = NumpyRequestCodec.encode_request(np.array(values, dtype))
        return _described(NumpyRequestCodec.decode_response(self._ask(model, request, wire)))

    def strings(self, model: str, name: str, values: list[str], wire: str) -> Any:
        """Texts in and texts out, by `StringCodec`."""
        tensor = StringCodec.encode_input(name, values, use_bytes=wire != "json")
        (output,) = self._ask(model, types.InferenceRequest(inputs=[tensor]), wire).outputs
        return {"texts": StringCodec.decode_output(output), "shape": output.shape}

    def frame(self, model: str, columns: dict[str, list[Any]], wire: str) -> Any:
        """A data frame in, whose columns are inputs, and one out, by `PandasCodec`."""
        request = PandasCodec.encode_request(pd.DataFrame(columns), use_bytes=wire != "json")
        return PandasCodec.decode_response(self._ask(model, request, wire)).to_dict(orient="list")

    def _ask(self, model: str, request: Any, wire: str, version: str = "", token: str = "") -> Any:
        """Sends a request as JSON, or over gRPC with its tensors typed or raw."""
        if wire == "json":
            path = f"/v2/models/{model}{'/versions/' + version if version else ''}/infer"
            text = self._http(path, json.loads(request.model_dump_json()), "POST", token)
            return types.InferenceResponse.model_validate_json(text, strict=True)
        message = converters.ModelInferRequestConverter.from_types(
            request, model_name=model, model_version=version, use_raw=wire == "raw"
        )
        if bool(message.raw_input_contents) != (wire == "raw"):
            raise AssertionError(f"the request is not {wire}")
        return converters.ModelInferResponseConverter.to_types(self._rpc("ModelInfer", message, token))

    def _rpc(self, method: str, request: Any, token: str = "") -> Any:
        metadata = (("authorization", f"Bearer {token}"),) if token else ()
        return getattr(self._stub, method)(request, timeout=_TIMEOUT_S, metadata=metadata)

    def _http(self, path: str, body: Any, method: str, token: str = "") -> str:
        headers = {"Content-Type": "application/json"} | (
            {"Authorization": f"Bearer {token}"} if token else {}
        )
        request = urllib.request.Request(
            self._rest_address + path,
            data=None if body is None else json.dumps(body).encode(),
            headers=headers,
            method=method,
        )
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
            return str(response.read().decode())


def _described(array: Any) -> dict[str, Any]:
    return {"values": array.tolist(), "dtype": str(array.dtype), "shape": list(array.shape)}


def _answered(caller: Caller, call: str, arguments: list[Any], named: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"result": getattr(caller, call)(*arguments, **named)}
    except grpc.RpcError as error:
        return {"status": error.code().name, "details": error.details()}
    except urllib.error.HTTPError as error:
        refusal = types.InferenceErrorResponse.model_validate_json(error.read(), strict=True)
        return {"status": str(error.code), "details": refusal.error}


def main() -> None:
    """Answers calls until there are no more."""
    caller = Caller(*sys.argv[1:])
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_answered(caller, *json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()

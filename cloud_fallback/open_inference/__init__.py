"""The Open Inference Protocol, version 2, over gRPC: messages and service, generated from `open_inference.proto`.

The package is `inference`, so KServe, Triton, OpenVINO Model Server and MLServer speak it too. Messages are in
`open_inference_pb2`, stub and servicer in `open_inference_pb2_grpc`. They live in a descriptor pool of their own; see
`pool` for why. Nothing is imported here, so that `generate` can make the stubs where there are none.
"""

__all__ = ["SERVICE_NAME"]

SERVICE_NAME = "inference.GRPCInferenceService"

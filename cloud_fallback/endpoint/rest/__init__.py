"""The endpoint over REST: the Open Inference Protocol v2 in JSON, with tensors in binary where a caller wants them."""

from cloud_fallback.endpoint.rest.rest_server import RestServer

__all__ = ["RestServer"]

"""The descriptor pool that our messages live in, and how their classes are made in it.

Every client and server of the Open Inference Protocol names its messages `inference.ModelInferRequest` and so on, as
the specification says, and generated code registers them in protobuf's default pool. Two such packages in one process,
such as `tritonclient` and ours, then raise "duplicate symbol". Generated code cannot be told to use another pool, and
`google.protobuf.internal.builder` registers every class in the default one again under the pure-Python implementation,
so `generate.py` puts this module in the place of both.
"""

from __future__ import annotations

from typing import Any, cast

from google.protobuf.descriptor import Descriptor, FileDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.reflection import GeneratedProtocolMessageType

__all__ = ["POOL", "build_messages"]

POOL = DescriptorPool()


def build_messages(file: FileDescriptor, module_name: str, module: dict[str, Any]) -> None:
    """Puts what generated code expects into `module`: a class for each message, nested ones as its attributes.

    Args:
        file: The descriptor of a `.proto` file in `POOL`, of messages and services only.
        module_name: Full name of the generated module.
        module: Its globals.
    """
    for name, service in file.services_by_name.items():
        module[f"_{name.upper()}"] = service
    for name, descriptor in file.message_types_by_name.items():
        module[name] = _message_class(descriptor, module_name, name)


def _message_class(descriptor: Descriptor, module_name: str, qualified_name: str) -> type[Message]:
    attributes: dict[str, Any] = {
        name: _message_class(nested, module_name, f"{qualified_name}.{name}")
        for name, nested in descriptor.nested_types_by_name.items()
    }
    attributes |= {"DESCRIPTOR": descriptor, "__module__": module_name, "__qualname__": qualified_name}
    # Calling the metaclass makes a class, which its type stub does not say.
    return cast("type[Message]", GeneratedProtocolMessageType(descriptor.name, (Message,), attributes))

"""Operators: the Python functions that a chain's stages and a bundle's preprocessing name.

An operator's positional parameters are the tensors it takes, its keyword-only parameters are the settings that a
chain gives it, and it returns an array or a mapping of named arrays. Packages add operators through the entry-point
group ``hybridge.operators``: an entry has the operator's name and leads to the function made with `operator`.

Example:
    >>> @operator("invert")
    ... def invert(image: Array, *, maximum: int = 255) -> Array:
    ...     return maximum - image
"""

from edge_runtime.operators.registry import Operator, find_operator, operator, operator_names

__all__ = ["Operator", "find_operator", "operator", "operator_names"]

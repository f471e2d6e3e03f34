"""Asking an endpoint from a device: when it is there, within the deadline, and for as few bytes as it takes."""

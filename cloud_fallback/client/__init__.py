"""Asking an endpoint from a device."""

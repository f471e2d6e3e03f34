"""The endpoint beside MLServer and Triton: calls a second, latency and processor time, on the same two cores."""

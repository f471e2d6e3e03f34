"""The endpoint over gRPC: calls that are let in, bounded, answered by threads, and ended when they stall."""

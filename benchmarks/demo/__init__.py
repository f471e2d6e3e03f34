"""The whole way on real input: train, convert, run on the device, ask the cloud, with the cloud up, slow and gone."""

from benchmarks.demo.demo import DemoResult, run_demo

__all__ = ["DemoResult", "run_demo"]

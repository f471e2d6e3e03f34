"""ONNX's own conformance suite through the importer and the device runtime."""

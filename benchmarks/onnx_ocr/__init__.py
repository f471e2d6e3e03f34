"""PP-OCR's published ONNX models, converted and measured beside onnxruntime."""

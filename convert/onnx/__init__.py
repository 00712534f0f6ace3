"""The exporter to ONNX, and the sessions that run what it wrote."""

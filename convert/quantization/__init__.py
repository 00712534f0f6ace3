"""What ONNX makes of a graph in each of `precisions`; `int8` is chosen by measurement."""

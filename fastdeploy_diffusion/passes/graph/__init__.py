"""Rewrites of exported ONNX graphs, one a file."""

"""Data of builds, and their readers, for running without Paddle and the tools of ONNX."""

"""What running a build needs: data, and what reads it; neither Paddle nor the tools of ONNX."""

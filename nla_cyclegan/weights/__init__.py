"""Weights: checkpoints of a run, generator files, other projects' layouts, ONNX."""

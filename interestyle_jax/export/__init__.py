"""A model as one file, StableHLO or ONNX, that runs without this package."""

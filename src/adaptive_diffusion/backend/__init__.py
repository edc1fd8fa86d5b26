"""The device and the BLAS that MLX computes with."""

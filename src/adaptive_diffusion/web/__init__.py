"""The page of `adaptive-diffusion app`: for people who would rather look. Everything in it runs as `sample.py` runs."""

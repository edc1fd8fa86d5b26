"""Measure a model once: reference trajectories, fitted steps, and their choice."""

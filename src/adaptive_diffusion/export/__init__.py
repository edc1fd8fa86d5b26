"""Calibrated schedules for other programs: a scheduler of diffusers, and tables of noise levels and timesteps."""

"""Learning how to sample: environments that really draw pictures, rewards that are measured, and agents."""

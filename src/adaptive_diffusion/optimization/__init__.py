"""Domain by domain: which configuration to sample with, found by agents, verified, and remembered."""

"""The environments under the names by which `gymnasium.make` finds them; importing `adaptive_diffusion.rl` does it."""

from __future__ import annotations

from gymnasium.envs.registration import register

IDS = {
    "adaptive_diffusion/DiffusionHyperparameter-v0": "adaptive_diffusion.rl.environment:DiffusionHyperparameterEnv",
    "adaptive_diffusion/Timestep-v0": "adaptive_diffusion.rl.timestep_environment:TimestepEnv",
}

for name, home in IDS.items():
    register(name, home)

"""`python -m benchmarks agents`: episodes until agents converge, and their scores at equal evaluations.

Every run of an agent, in an environment and a domain, with a seed, writes one JSON file. A finished run is not
repeated. Several processes may share the folder, each with its own domains, agents or seeds; set `OMP_NUM_THREADS=1` if
there are as many processes as cores. `--report-only` prints the tables of all files in the folder.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from adaptive_diffusion.backend import prepare as backend
from adaptive_diffusion.encoder.encoder import load_builtin_encoder
from adaptive_diffusion.errors import UserError
from adaptive_diffusion.optimization.configuration import DomainConfig
from adaptive_diffusion.optimization.domains import DomainType, nearest_domain
from adaptive_diffusion.optimization.environment import DomainEnv
from adaptive_diffusion.optimization.pipeline import OptimizationPipeline
from adaptive_diffusion.rl.agent import TuningAgent
from adaptive_diffusion.rl.baselines import CEMAgent, FixedAgent, RandomAgent
from adaptive_diffusion.rl.episodes import fitting, run_episode
from adaptive_diffusion.rl.ppo_agent import HyperparameterTuningAgent
from adaptive_diffusion.rl.real_noises import RealNoises
from adaptive_diffusion.rl.reward import HybridReward
from adaptive_diffusion.rl.sampling_env import SamplingEnv
from adaptive_diffusion.rl.searches import CMAESAgent, TPEAgent
from adaptive_diffusion.rl.timestep_environment import TimestepEnv
from benchmarks.agents_grid import FRESH_SEED, Choice, GridEnv, Store, fresh_table
from benchmarks.agents_report import Result, load_result, report, save_result

HELD_OUT = 12  # batches of 66 images, in `real`
CACHE_VERSION = 2  # raised when a change of the code changes the numbers, so that old files are not used
AGENTS: dict[str, Callable[..., TuningAgent]] = {
    "ppo": HyperparameterTuningAgent,
    "cem": CEMAgent,
    "tpe": TPEAgent,
    "cmaes": CMAESAgent,
    "random": RandomAgent,
    "fixed": FixedAgent,
}
ENVIRONMENTS = {
    "hyperparameters": "the environment of `train.py agent=...`: around the shipped scheduler, with calibrated steps",
    "timesteps": "TimestepEnv: one step is one network evaluation",
    "real": "guidance and steps, by distance to real images and passes, on a grid that is drawn once: see `GridEnv`",
    "uncalibrated": "as hyperparameters, around the power grid of a model without calibrated steps",
}
Start = Mapping[str, Any]  # hyperparameters that an agent chose elsewhere


class TransferredTimestepEnv(TimestepEnv):
    """A `TimestepEnv` whose action 0 is another grid than the baseline of its reward.

    Args:
        timesteps: (num_steps,) the grid, strictly decreasing from T - 1.
        ...: As for `TimestepEnv`.
    """

    def __init__(self, *args: Any, timesteps: list[float], **more: Any):
        super().__init__(*args, **more)
        self._around, self.route = timesteps, replace(self.route, prior=np.array(timesteps))

    def describe(self) -> dict[str, Any]:
        """See `SamplingEnv`."""
        return {**super().describe(), "around": self._around}


@dataclass
class AgentBench:
    """Runs of agents, saved in a folder.

    Args:
        output: The folder; converged solutions are saved below it.
        episodes: Episodes of training, >= 1.
        most: Model evaluations of a training, after which it ends; None: as many as its episodes take.
        pictures: Images per batch; None: what the environment takes. Timesteps take 16.
        pipeline: Gives model and default configuration; by default of the shipped model, as in `train.py`.
    """

    output: Path
    episodes: int = 100
    most: int | None = None
    pictures: int | None = None
    pipeline: OptimizationPipeline = field(default_factory=OptimizationPipeline)
    _shared: dict[tuple[str, str], tuple[SamplingEnv, SamplingEnv]] = field(default_factory=dict, repr=False)

    def run(self, environment: str, domain: str, agent: str, seed: int) -> Result:
        """Train an agent from scratch, or read the result of an earlier run."""
        env, held_out = self._environments(environment, domain)
        return self._trained(environment, env, held_out, agent, seed)

    def transfer(self, environment: str, domain: str, agent: str, seed: int) -> Result:
        """Train an agent from the result of the same agent in the nearest other domain, as `DomainAdapter` does.

        Raises:
            UserError: if there is no other domain.
        """
        others = set(self.pipeline.adapter.model.domains or ()) - {domain}
        source = nearest_domain(domain, {}, load_builtin_encoder(), others)
        if source is None:
            raise UserError(f"no other domain of the model can be compared with {domain!r}; leave --transfer out")

        env = self._environment(environment, domain, self.run(environment, source, agent, seed).chosen)
        return self._trained(environment, env, env.held_out(), agent, seed, source)

    def results(self) -> list[Result]:
        """All results in the folder, in the order of the tables."""
        found = [load_result(path) for path in sorted(self._folder.glob("*.json"))]
        ranks = {name: i for i, name in enumerate([*ENVIRONMENTS, *DomainType, *AGENTS])}
        return sorted(
            (r for r in found if r is not None),
            key=lambda r: [*(ranks.get(name, len(ranks)) for name in (r.environment, r.domain, r.agent)), r.seed],
        )

    def fresh(self, domain: str, pictures: int) -> dict[str, list[Choice]]:
        """What agents chose on the grid of a domain, and the grid's own best, drawn from noises that nobody saw."""
        env, _ = self._environments("real", domain)
        assert isinstance(env, GridEnv)
        assert isinstance(env.default, DomainConfig)
        chosen: dict[str, list[DomainConfig]] = {}
        for result in self.results():
            if (result.environment, result.domain, result.source) == ("real", domain, None):
                chosen.setdefault(result.agent, []).append(replace(env.default, **result.chosen))
        chosen["the grid's best"] = [env.best()]

        noises = RealNoises(self.pipeline.drawing(domain), pictures=pictures, batches=1, seed=FRESH_SEED)
        return {
            agent: [Choice.of(self._store, noises, config, env) for config in configs]
            for agent, configs in chosen.items()
        }

    @cached_property
    def _store(self) -> Store:
        return Store(self.output / "grid")

    @property
    def _folder(self) -> Path:
        return self.output / "runs"

    def _environments(self, environment: str, domain: str) -> tuple[SamplingEnv, SamplingEnv]:
        """The environment and its held-out twin. Agents and seeds share them, since they remember what was drawn."""
        if (environment, domain) not in self._shared:
            env = self._environment(environment, domain)
            held_out = env.held_out(HELD_OUT) if isinstance(env, GridEnv) else env.held_out()
            self._shared[environment, domain] = env, held_out
        return self._shared[environment, domain]

    def _environment(self, environment: str, domain: str, start: Start | None = None) -> SamplingEnv:
        drawing, cache = self.pipeline.drawing(domain), self.output / "converged"
        if environment == "timesteps":
            if start is None:
                return TimestepEnv(drawing, cache=cache)
            return TransferredTimestepEnv(drawing, timesteps=start["timesteps"], cache=cache)

        default = self.pipeline.default_config(domain)
        if environment == "uncalibrated":
            default = replace(default, calibration=None)
        begin = replace(default, **(start or {}))
        if environment == "real":
            return GridEnv(
                self._store, drawing, begin, default, HybridReward(metric="real", unit="passes"), pictures=self.pictures
            )
        return DomainEnv(drawing, begin, default, pictures=self.pictures, cache=cache)

    def _trained(
        self, name: str, env: SamplingEnv, held_out: SamplingEnv, kind: str, seed: int, source: str | None = None
    ) -> Result:
        agent = AGENTS[kind](env, seed=seed)
        path = self._folder / f"{name}-{env.drawing.domain}-{kind}-{seed}-{self._fingerprint(agent, source)}.json"
        if (done := load_result(path)) is not None:
            return done

        agent.train(self.episodes * env.episode_length, eval_env=held_out, max_evaluations=self.most)
        _, _, info = run_episode(env.sibling(), lambda seen: agent.predict(seen)[0], options={"batch": 0})

        result = Result(
            model=env.drawing.guided_identity,
            environment=name,
            domain=env.drawing.domain,
            agent=kind,
            seed=seed,
            episodes=self.episodes,
            source=source,
            chosen=info["hyperparameters"],
            device=backend.info().device,
            record=agent.record,
        )

        save_result(path, result)
        print(_line(result), flush=True)
        return result

    def _fingerprint(self, agent: TuningAgent, source: str | None) -> str:
        """A hash of everything that decides a run's numbers."""
        env = agent.env
        default = env.default if isinstance(env, DomainEnv) else None
        calibration = default.calibration if isinstance(default, DomainConfig) else None

        decided_by = {
            "numbers": CACHE_VERSION,
            **fitting(env),
            "calibration": None if calibration is None else asdict(calibration),
            "agent": agent.get_config(),
            "episodes": self.episodes,
            **({} if self.most is None else {"most": self.most}),
            "source": source,
        }
        return hashlib.sha256(json.dumps(decided_by, sort_keys=True).encode()).hexdigest()[:16]


def main(argv: list[str]) -> None:
    """Train the agents that have no result yet, with a line for each run, and print the tables of all results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks agents", description=__doc__)
    parser.add_argument("--environments", nargs="+", choices=ENVIRONMENTS, default=["hyperparameters", "timesteps"])
    parser.add_argument("--domains", nargs="+", default=list(DomainType), help="domains to tune, and to compare anew")
    parser.add_argument("--agents", nargs="+", choices=AGENTS, default=list(AGENTS), help="fixed takes seed 0 only")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(5)), help="of the agents")
    parser.add_argument("--episodes", type=int, default=100, help="to train for")
    parser.add_argument("--evaluations", type=int, help="of the model, each image counting, that end a training too")
    parser.add_argument("--images", type=int, help="per batch; default: what the environment takes")
    parser.add_argument("--fresh", type=int, default=792, help="images by which choices in `real` are compared anew")
    parser.add_argument("--transfer", action="store_true", help="begin also with the nearest other domain's result")
    parser.add_argument("--output", type=Path, default=Path("outputs/agents"), help="folder of the results")
    parser.add_argument("--report-only", action="store_true", help="only print the tables of all that is there")
    options = parser.parse_args(argv)

    bench = AgentBench(options.output, options.episodes, options.evaluations, options.images)
    runs = [
        (environment, domain, agent, seed)
        for environment in options.environments
        for domain in options.domains
        for agent in options.agents
        for seed in (options.seeds if agent != "fixed" else [0])  # it does not depend on the seed
    ]

    if not options.report_only:
        for run in runs:
            bench.run(*run)
        for run in runs:
            if options.transfer and run[2] != "fixed":
                bench.transfer(*run)

    if not (results := bench.results()):
        raise UserError(f"there are no results in {options.output}; leave --report-only out, or give another --output")

    print(report(results))
    real = {result.domain for result in results if result.environment == "real"}
    for domain in sorted(real.intersection(options.domains)):
        print(fresh_table(domain, bench.fresh(domain, options.fresh)), flush=True)


def _line(result: Result) -> str:
    summary = result.record.summary()
    at = summary["convergence_episode"]
    begun = f" begun with {result.source}" if result.source else ""

    return (
        f"{result.environment} {result.domain} {result.agent} seed {result.seed}{begun}: "
        f"{'not converged' if at is None else f'converged at {at}'}, score {summary['final_score']:.3f} +- "
        f"{summary['final_standard_error']:.3f}, quality {summary['final_quality']:.3f}, "
        f"{summary['model_evaluations']} evaluations, {summary['seconds']:.0f} s"
    )

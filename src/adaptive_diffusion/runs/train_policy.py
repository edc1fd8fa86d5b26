"""The story of `train.py task=policy`: train a policy that chooses timesteps, for `scheduler=learned`."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ..errors import UserError
from ..grids.grids import Grid
from ..io import figures
from ..io.locks import alone
from ..rl.agent import TuningAgent
from ..rl.agent_file import read_agent
from ..rl.drawing import drawing_in
from ..rl.learned_scheduler import Wanted
from ..rl.reward import QualityReward, Reward
from ..rl.timestep_environment import TimestepEnv
from ..tracking.mlflow import Run
from ..tracking.provenance import domain_settings, draw_command, git_state
from .agent_sweep import write_outcomes
from .agents import AgentTraining, agent_parameters, method, path_settings, tell_cost, training_in
from .assemble import build
from .naming import labels
from .train import training_configuration

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PolicyTask(AgentTraining):
    """What `task=policy` builds: what the policy is to draw, and how long it is trained.

    Args:
        grid: The prior.
        num_steps: Model evaluations of a picture, >= 2.
        stopping: Whether the policy may stop earlier.
        model, ...: See `AgentTraining`.

    Raises:
        ValueError: for a value out of range.
    """

    grid: Grid
    num_steps: int = 8
    stopping: bool = False
    episodes: int = 300
    pictures: int = 16
    batches: int = 4


def train_policy(cfg: DictConfig) -> float:
    """Train a policy in one domain; its agent is saved after every evaluation.

    Args:
        cfg: `conf/train.yaml`, composed, with a `PolicyTask` as its task, agent=ppo, a reward and a domain.

    Returns:
        -1 times the score on held-out noises: what a sweeper may minimise.

    Raises:
        UserError: for a value that cannot be used; nothing was written then. Or for a reward that is not a finite
            number.
        MachineError: if the disk or the database refuses.
    """
    if cfg.agent is None or cfg.domain is None:
        raise UserError("task=policy needs an agent and a domain, e.g. agent=ppo domain=landscapes")
    if Path(cfg.domain.name).name != cfg.domain.name:
        raise UserError(f"domain.name names a file here and must not hold folders, got {cfg.domain.name!r}")
    cfg = training_configuration(cfg, "policy/${domain.name}_${task.num_steps}.zip")
    domain, (task, agent) = cfg.domain.name, _parts(cfg)
    tell_cost(agent.env, task.episodes)
    tracker, git, folder = build(cfg, "tracking"), git_state(cfg.paths.root), Path(cfg.paths.run)
    tags = {**labels(cfg), **(git.tags if git else {})}
    name = cfg.name or " ".join(["train policy", *method(cfg), domain, f"{task.num_steps} steps"])
    with alone(cfg.output), tracker.open(name, params=agent_parameters(cfg), tags=tags) as run:
        summary = _trained(agent, task.episodes, folder / Path(cfg.output).name, domain, run)
        agent.save(cfg.output)
        run.metrics({f"final/{key}": summary[f"final_{key}"] for key in ("score", "standard_error", "quality")})
        figures.write_text(folder / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True))
        run.folder(folder)
    _tell(summary, task, domain)
    log.info("%-11s%s", "saved", cfg.output)
    where = path_settings(cfg, f"policy/{domain}_{task.num_steps}.zip")
    settings = ("scheduler=learned", *where, *domain_settings(domain), f"num_steps={task.num_steps}")
    case, draw = f"{domain} {task.num_steps} steps", draw_command(*settings)
    write_outcomes(Path(cfg.paths.run), method(cfg), cfg.output, {case: float(summary["final_score"])}, {case: draw})
    log.info("%-11s%s", "draw", draw)
    return -float(summary["final_score"])


def _parts(cfg: DictConfig) -> tuple[PolicyTask, TuningAgent]:
    """The task, and the agent in its environment; everything that can be refused is refused here."""
    task: PolicyTask = build(cfg, "task")
    domain = cfg.domain.name
    drawing = replace(drawing_in(task.model, domain, task.guidance_scale), domain=domain)
    try:
        env = TimestepEnv(
            drawing,
            reward=_reward(build(cfg, "reward"), task.stopping),
            grid=task.grid,
            num_steps=task.num_steps,
            stopping=task.stopping,
            pictures=task.pictures,
            batches=task.batches,
            noise_seed=task.noise_seed,
            cache=Path(cfg.paths.outputs) / "converged",
        )
    except ValueError as error:
        raise UserError(f"task: {error}") from None
    agent: TuningAgent = build(cfg, "agent", env=env)
    if agent.kind != "ppo":
        raise UserError(f"task=policy needs agent=ppo: agent={agent.kind} learns no policy")
    if task.start_from is not None:
        wanted = Wanted(drawing.guided_identity, drawing.domain, task.num_steps)
        if differs := wanted.differs(read_agent(task.start_from)[0]):
            raise UserError(f"the agent in {task.start_from} was trained {differs}; leave task.start_from out")
        agent.load(task.start_from)
        if len(agent.record.returns) >= task.episodes:
            raise UserError(f"task.episodes={task.episodes} are done already; give more, or leave task.start_from out")
    return task, agent


def _reward(reward: Reward, stopping: bool) -> Reward:
    """What a policy that cannot stop is trained for is quality alone: its speed is always the same."""
    if stopping:
        return reward
    if reward.weight == 0:
        raise UserError("a policy that cannot stop is as fast as any other; take reward=quality or task.stopping=true")
    return QualityReward(reward.metric)


def _trained(agent: TuningAgent, episodes: int, file: Path, domain: str, run: Run) -> dict[str, Any]:
    """Train as far as the episodes go, or to the first evaluation after them; what `TuningAgent.train` returns."""

    def told(metrics: dict[str, float], episode: int) -> bool:
        run.metrics(metrics, episode)
        return episode < episodes

    steps = (episodes - len(agent.record.returns)) * agent.env.episode_length  # fewer where the policy stops earlier
    with training_in(domain, file):
        return agent.train(steps, told, checkpoint=file)


def _tell(summary: dict[str, Any], task: PolicyTask, domain: str) -> None:
    """Log what came of it."""
    score, spread, quality = (summary[f"final_{key}"] for key in ("score", "standard_error", "quality"))
    converged = "not converged" if (at := summary["convergence_episode"]) is None else f"converged after {at}"
    training = f"{summary['episodes']} episodes, {converged}, {summary['model_evaluations']} model evaluations"
    what = "reward" if task.stopping else "log(prior's error / policy's)"
    rows = {
        domain: f"{task.num_steps} steps, {what} {score:+.3f} +- {spread:.3f} (standard error) on held-out noises",
        "error": f"{math.exp(-quality):.2f} of the prior grid's",
        "training": f"{training}, {summary['seconds']:.0f} s",
    }
    log.info("%s", "\n".join(f"{name:<11}{text}" for name, text in rows.items()))

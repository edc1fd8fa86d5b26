"""`train.py task=policy`: train a policy that chooses timesteps, for `scheduler=learned`."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from omegaconf import DictConfig

from ..errors import UserError
from ..grids.base import Spacing
from ..io.counted import count
from ..io.locks import alone
from ..rl.agent import TuningAgent
from ..rl.agent_file import read_agent
from ..rl.cost import cost
from ..rl.drawing import drawing_in
from ..rl.learned_scheduler import Wanted
from ..rl.measurement import REAL_UNIT
from ..rl.reward import QualityReward, Reward, compares_with_real_images
from ..rl.timestep_environment import TimestepEnv
from ..tracking.tracker import Run
from .agents import (
    AgentTraining,
    describe_training,
    finish,
    finished_before,
    path_settings,
    recorded_agent,
    trained_by,
    training_in,
)
from .build import build
from .output import log_rows
from .settings_text import domain_settings, draw_command


@dataclass(frozen=True, kw_only=True)
class PolicyTask(AgentTraining):
    """What `task=policy` builds: what the policy is to draw, and how long it is trained.

    Args:
        grid: The prior.
        num_steps: Model evaluations of an image, >= 2.
        stopping: Whether the policy may stop earlier.
        model, ...: See `AgentTraining`.

    Raises:
        ValueError: for a value out of range.
    """

    grid: Spacing
    num_steps: int = 8
    stopping: bool = False
    episodes: int = 300
    pictures: int = 16
    batches: int = 4
    result: ClassVar[str] = "policy/${domain.name}_${task.num_steps}.zip"
    takes: ClassVar[tuple[str, ...]] = ("agent", "reward", "domain")
    needs: ClassVar[str] = "agent=ppo domain=landscapes"

    def run(self, cfg: DictConfig) -> float:
        """Train a policy in one domain; its agent is saved after every evaluation.

        Args:
            cfg: `conf/train.yaml`, composed and checked, with agent=ppo, a reward and a domain.

        Returns:
            -1 times the score on held-out noises: what a sweeper may minimise.

        Raises:
            UserError: for a value that cannot be used; nothing was written then. Or for a reward that is not a finite
                number.
            MachineError: if the disk or the database refuses.
        """
        if (done := finished_before(cfg, self.model.identity)) is not None:
            return done
        domain, agent = cfg.domain.name, _agent(cfg, self)
        log_rows({"cost": cost(agent, self.episodes)})

        steps = count(self.num_steps, "step")
        name = "train policy", *trained_by(cfg), domain, steps
        checkpoint = Path(cfg.paths.run) / Path(cfg.output).name
        with alone(cfg.output, checkpoint), recorded_agent(cfg, self.model, *name) as run:
            summary = _trained(agent, self.episodes, checkpoint, domain, run)
            agent.save(cfg.output)
            run.metrics({f"final/{key}": summary[f"final_{key}"] for key in ("score", "quality")})
        _report(summary, self, domain, agent.env.reward)

        where = path_settings(cfg, f"policy/{domain}_{self.num_steps}.zip")
        draw = draw_command("scheduler=learned", *where, *domain_settings(domain), f"num_steps={self.num_steps}")
        score, error = float(summary["final_score"]), float(summary["final_standard_error"])
        found = {"score": score, "error": error, "episodes": int(summary["episodes"])}
        finish(cfg, [{"case": f"{domain} {steps}", **found, "draw": draw}], self.model.identity)
        return -score


def _agent(cfg: DictConfig, task: PolicyTask) -> TuningAgent:
    """The agent in its environment; everything that can be refused is refused here."""
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
    return agent


def _reward(reward: Reward, stopping: bool) -> Reward:
    """The reward of the policy: quality alone for a policy that cannot stop, whose speed is always the same."""
    if stopping:
        return reward
    if reward.weight == 0:
        raise UserError("a policy that cannot stop is as fast as any other; take reward=quality or task.stopping=true")
    return QualityReward(reward.metric)


def _trained(agent: TuningAgent, episodes: int, file: Path, domain: str, run: Run) -> dict[str, Any]:
    """Train as far as the episodes go, or to the first evaluation after them; what `TuningAgent.train` returns."""

    def record(metrics: dict[str, float], episode: int) -> bool:
        run.metrics({name: value for name, value in metrics.items() if not name.endswith("_error")}, episode)
        return episode < episodes

    # An episode has fewer steps where the policy stops earlier.
    steps = (episodes - len(agent.record.returns)) * agent.env.episode_length

    with training_in(domain, file):
        return agent.train(steps, record, checkpoint=file)


def _report(summary: dict[str, Any], task: PolicyTask, domain: str, reward: Reward) -> None:
    """Log the result."""
    score, spread, quality = (summary[f"final_{key}"] for key in ("score", "standard_error", "quality"))
    if compares_with_real_images(reward):  # errors may be negative, and have no ratio
        what, error = "quality", f"{-REAL_UNIT * quality:+.4f} against the prior grid's, by metric={reward.metric}"
    else:
        what, error = "log(prior's error / policy's)", f"{math.exp(-quality):.2f} of the prior grid's"
    what = "reward" if task.stopping else what
    steps, evaluations = count(task.num_steps, "step"), count(summary["model_evaluations"], "model evaluation")
    log_rows(
        {
            domain: f"{steps}, {what} {score:+.3f} +- {spread:.3f} (standard error) on held-out noises",
            "error": error,
            "training": f"{describe_training(summary)}, {evaluations}, {summary['seconds']:.0f} s",
        }
    )

"""HyperparameterTuningAgent: proximal policy optimisation (Schulman et al., 2017) by Stable-Baselines3.

Only it, `vector` and `torch_state` need PyTorch and Stable-Baselines3, which are loaded when an agent is made.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..diffusion.checks import check_count, check_number
from ..errors import MissingPackage
from ..metrics.intervals import standard_error
from ..program import pip_install
from . import torch_state
from .agent import TuningAgent
from .callbacks import Callbacks
from .episodes import measure
from .gym import Env
from .policy import Policy
from .policy_snapshot import CLIP_OBSERVATION, VARIANCE_FLOOR, PolicySnapshot

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gymnasium.spaces import Box
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.vec_env import VecEnv, VecNormalize
    from torch.distributions import Normal

PATHS_PER_UPDATE = 10
MARGIN = 0.5  # standard errors by which a later choice must be better


class HyperparameterTuningAgent(TuningAgent):
    """A PPO agent with a tiny policy that is updated after every ten paths or so from noise to images.

    Few episodes are all there is, since each of them draws a batch. So an update comes early, where Stable-Baselines3's
    2048 steps would make it one in 2048 episodes of a one-step environment. The policy has one hidden layer, 16 wide
    for one-step episodes and 32 for longer ones, and begins at the environment's prior: its actions are residuals with
    mean about 0.

    The batch of an episode is split, and every part of it explores on a path of its own, which costs no more model
    evaluations. Rewards differ far more by what was explored than by the images that it was explored on, so that two
    images a part teach several times as fast as whole batches do.

    The best choice so far is kept: before every evaluation on held-out noises the latest mean actions are played on
    each of the environment's own batches, and replace those kept before if they are better by more than half the
    standard error of the paired difference: the best of many equals would be the luckiest. Learning goes on from the
    latest policy all the same. The model evaluations that this takes are counted with the others.

    Args:
        env: A `DiffusionHyperparameterEnv`, also where None is given, or a `TimestepEnv`.
        learning_rate: Of Adam, in (0, 1]; None: 0.01 for one-step episodes, 0.005 for longer ones.
        n_steps: Steps per update, of all parts and `num_envs` together, >= 2, rounded up to as many for each of them;
            None: whole episodes with ten paths or so. The last update of a training is of the steps that are left.
        batch_size: Steps per minibatch, >= 2; None, or more than there are: all of an update.
        normalize_env: Normalise observations by their running mean and variance. Rewards are never normalised: they
            are about 1 by construction.
        verbose: See `TuningAgent`.
        initial_std: Standard deviation of the actions to begin with, > 0; None: 0.5 and 0.3.
        num_envs: Siblings that play at once, with one model evaluation for all, >= 1.
        seed: Of weights, exploration and episodes, >= 0. PyTorch's and NumPy's global generators are seeded, as
            Stable-Baselines3 does.
        parts, eval_every: See `TuningAgent`.

    Raises:
        ValueError: for another kind of environment, or a value out of range.
        MissingPackage: where Stable-Baselines3 is not installed.
    """

    kind = "ppo"

    def __init__(
        self,
        env: Env | None = None,
        learning_rate: float | None = None,
        n_steps: int | None = None,
        batch_size: int | None = None,
        normalize_env: bool = True,
        verbose: int = 0,
        *,
        initial_std: float | None = None,
        parts: int | None = None,
        num_envs: int = 1,
        seed: int = 0,
        eval_every: int = 10,
    ):
        super().__init__(env, seed=seed, eval_every=eval_every, verbose=verbose, parts=parts)
        length = self.env.episode_length
        single = length == 1
        self.num_envs = check_count("num_envs", num_envs, 1)
        self._lanes = self.num_envs * self.parts
        whole = max(round(PATHS_PER_UPDATE / self._lanes), 1) * length
        self._steps = whole if n_steps is None else -(-check_count("n_steps", n_steps, 2) // self._lanes)  # per lane
        self.n_steps = self._steps * self._lanes
        minibatch = self.n_steps if batch_size is None else check_count("batch_size", batch_size, 2)
        self.batch_size = min(minibatch, self.n_steps)
        chosen = (0.01 if single else 0.005) if learning_rate is None else learning_rate
        self.learning_rate = check_number("learning_rate", chosen, 0, 1, above=True)
        chosen = (0.5 if single else 0.3) if initial_std is None else initial_std
        self.initial_std = check_number("initial_std", chosen, 0, above=True)
        self.normalize_env = bool(normalize_env)
        self._kept: PolicySnapshot | None = None
        self._build(16 if single else 32)

    def _build(self, width: int) -> None:
        try:
            from stable_baselines3 import PPO
        except ModuleNotFoundError as error:
            raise MissingPackage(
                f"PPO needs {error.name}, which is not installed: {pip_install('rl')}; agent=cem, random, tpe "
                "and cmaes do without it"
            ) from None

        from .vector import LockstepVecEnv

        self._lockstep = LockstepVecEnv(self.part, self._lanes)
        self._normalize = self._normalised(self._lockstep, training=self.normalize_env)
        self.model: PPO = PPO(
            "MlpPolicy",
            self._normalize,
            learning_rate=self.learning_rate,
            n_steps=self._steps,
            batch_size=self.batch_size,
            gamma=1.0,
            gae_lambda=0.95,
            policy_kwargs={
                "net_arch": {"pi": [width], "vf": [width]},
                "log_std_init": float(np.log(self.initial_std)),
            },
            seed=self.seed,
            device="cpu",
        )

    def predict(self, observation: np.ndarray, deterministic: bool = True) -> tuple[np.ndarray, None]:
        """An action for an observation.

        Args:
            observation: (O,) or (B, O), as the environment gives it.
            deterministic: The mean action of the policy that was kept, or else of the latest; not a sample of the
                latest, which is drawn by the agent's seed, whatever PyTorch draws elsewhere.

        Returns:
            (A,) or (B, A) action, and None for the state that the policy does not have.

        Raises:
            ValueError: for an observation of another shape.
        """
        observation = self._observed(observation)
        if deterministic:
            return np.array(self.export()(observation)), None

        # Stable-Baselines3 would sample by PyTorch's global generator
        policy, space = self.model.policy, cast("Box", self.model.action_space)
        seen, _ = policy.obs_to_tensor(self._normalize.normalize_obs(observation))
        normal = cast("Normal", policy.get_distribution(seen).distribution)
        mean, std = torch_state.array(normal.mean), torch_state.array(normal.stddev)
        sample = mean + std * self._predict_rng.standard_normal(mean.shape, np.float32)
        return np.clip(sample, space.low, space.high).reshape(*observation.shape[:-1], -1), None

    def export(self) -> Policy:
        """The policy that was kept, or the latest, in MLX: its mean actions, see `policy.load_policy` for files."""
        return self._latest().policy if self._kept is None else self._kept.policy

    def get_config(self) -> dict[str, Any]:
        """How the agent was made, with what None stood for."""
        names = ("learning_rate", "n_steps", "batch_size", "normalize_env", "initial_std", "parts", "num_envs", "seed")
        return {"agent": self.kind, **{name: getattr(self, name) for name in names}, "eval_every": self.eval_every}

    def _checked(self, callbacks: Callbacks) -> Callbacks:
        """All callbacks are called."""
        return callbacks

    def _normalised(self, env: VecEnv, *, training: bool) -> VecNormalize:
        """Environments as the policy sees them."""
        from stable_baselines3.common.vec_env import VecMonitor, VecNormalize

        return VecNormalize(
            VecMonitor(env),
            training=training,
            norm_obs=self.normalize_env,
            norm_reward=False,
            clip_obs=CLIP_OBSERVATION,
            epsilon=VARIANCE_FLOOR,
        )

    def _let_evaluate(self, callbacks: Iterable[BaseCallback]) -> None:
        """Give callbacks that evaluate the policy an environment as it sees it; its user cannot know the means."""
        from stable_baselines3.common.callbacks import CallbackList, EvalCallback
        from stable_baselines3.common.vec_env import unwrap_vec_normalize

        for callback in callbacks:
            if isinstance(callback, CallbackList):
                self._let_evaluate(callback.callbacks)
            elif isinstance(callback, EvalCallback) and unwrap_vec_normalize(callback.eval_env) is None:
                callback.eval_env = self._normalised(callback.eval_env, training=False)

    def _learn(self, total: int) -> None:
        from stable_baselines3.common.callbacks import BaseCallback

        agent = self

        class Follow(BaseCallback):
            """Tells the agent of episodes and updates."""

            def _on_rollout_start(self) -> None:
                agent._evaluate_if_due()

            def _on_step(self) -> bool:
                agent.record.timesteps = self.num_timesteps // agent.parts
                for info in self.locals["infos"]:
                    if "episode" in info:
                        agent._note_path(float(info["episode"]["r"]), int(info["episode"]["l"]))
                return not agent._ended

        self._let_evaluate(self._callbacks.steps)
        length = self.env.episode_length
        each = -(-total // (self.num_envs * length)) * length  # steps of a lane: whole episodes
        left = each % self._steps
        if self._update(each - left, self._steps, Follow()) and not self._ended:
            self._update(left, left, Follow())

    def _update(self, each: int, every: int, follow: BaseCallback) -> bool:
        """Take steps in each lane, and update the policy after so many of these; whether nobody ended it before."""
        if each == 0:
            return True
        end = self.model.num_timesteps + each * self._lanes
        self.model.n_steps = self.model.rollout_buffer.buffer_size = every
        callbacks = [follow, *self._callbacks.steps]
        self.model.learn(each * self._lanes, callback=callbacks, reset_num_timesteps=False)
        return self.model.num_timesteps >= end

    @property
    def episodes_at_once(self) -> int:
        """See `TuningAgent`: one of each environment."""
        return self.num_envs

    @property
    def batches_per_choice(self) -> int:
        """See `TuningAgent`: all of the environment's own."""
        return self.env.noises.batches

    def _settle_choice(self) -> None:
        latest = self._latest()
        scores, _ = measure(self.work, lambda: lambda seen: np.array(latest.policy(seen)))
        if self._kept is not None and self._kept.scores is not None:
            gain = scores - self._kept.scores
            if gain.mean() <= MARGIN * standard_error(gain):
                return
        self._kept = replace(latest, scores=scores)

    def _latest(self) -> PolicySnapshot:
        """The policy as training has it now, with no score."""
        rms = self._normalize.obs_rms if self.normalize_env else None
        return PolicySnapshot.of(self.model.policy, self.env, rms)

    def _state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        latest = self._latest()
        kept = latest if self._kept is None else self._kept
        generators, of_generators = torch_state.generator_state()
        tensors = {
            **kept.tensors,
            **{f"training.{name}": value for name, value in latest.tensors.items()},
            **torch_state.optimizer_tensors(self.model.policy.optimizer),
            **of_generators,
        }

        rms: Any = self._normalize.obs_rms if self.normalize_env else None
        state = {
            "policy": kept.description,
            "scores": None if kept.scores is None else kept.scores.tolist(),
            "observations": None if rms is None else [rms.mean.tolist(), rms.var.tolist(), float(rms.count)],
            "timesteps": self.model.num_timesteps,
            "begun": self.model._last_obs is not None,
            "episodes": self._lockstep.get_attr("state"),
            **generators,
        }
        return state, tensors

    def _restore(self, state: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
        if len(state["episodes"]) != self._lanes:
            lanes = f"{self.parts} x {self.num_envs}"
            raise ValueError(f"parts x num_envs were {len(state['episodes'])} in its training, this one has {lanes}")
        if (state["observations"] is None) == self.normalize_env:
            raise ValueError(f"it was trained with normalize_env={not self.normalize_env}")

        # all is read before anything changes, so that a torn file leaves the agent as it was
        weights, slots = self._checked_weights(tensors), torch_state.optimizer_slots(tensors)
        timesteps, restore_generators = state["timesteps"], torch_state.generators_in(state, tensors)

        scores = state["scores"]
        own = {n: v for n, v in tensors.items() if n.startswith("policy.")}
        self._kept = None if scores is None else PolicySnapshot(state["policy"], own, np.array(scores))

        policy = self.model.policy
        policy.load_state_dict(weights)
        policy.optimizer.load_state_dict({**policy.optimizer.state_dict(), "state": slots})
        if state["observations"] is not None:
            mean, variance, count = state["observations"]
            rms: Any = self._normalize.obs_rms
            rms.mean, rms.var, rms.count = np.array(mean), np.array(variance), count

        self.model.num_timesteps = timesteps
        self._begin_again(state)
        restore_generators()  # last: to begin anew takes random numbers

    def _checked_weights(self, tensors: dict[str, np.ndarray]) -> dict[str, Any]:
        """The weights that training stood at, by their names in the policy network."""
        prefix = "training.policy."
        weights = {n.removeprefix(prefix): torch_state.tensor(v) for n, v in tensors.items() if n.startswith(prefix)}
        expected = {name: tuple(value.shape) for name, value in self.model.policy.state_dict().items()}
        if {name: tuple(value.shape) for name, value in weights.items()} != expected:
            raise ValueError("its policy network has another architecture")
        return weights

    def _begin_again(self, state: dict[str, Any]) -> None:
        """Put the siblings at the beginning of their current episodes, without observing these a second time."""
        if not state["begun"]:
            return

        for env, episode in zip(self._lockstep.envs, state["episodes"], strict=True):
            env.restore(episode)
        self._lockstep._reset_seeds()  # those of the constructor are still waiting for a first reset
        self._normalize.training = False
        self.model._last_obs = self._normalize.reset()
        self.model._last_episode_starts = np.ones(self._lanes, bool)
        self._normalize.training = self.normalize_env

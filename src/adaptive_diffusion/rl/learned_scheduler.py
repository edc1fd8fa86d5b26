"""LearnedScheduler: a trained policy chooses every timestep from what the batch shows. Needs no PyTorch."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from ..diffusion.guidance import Guidance, guidance_in, identity_of
from ..diffusion.node import Node
from ..errors import Unusable
from ..grids.base import GridMemory
from ..grids.policy import PolicyGrid, Residuals
from ..io.counted import count
from ..io.files import ASSETS, describe_path
from ..schedulers.core import SchedulerCore
from ..solvers.dpm_solver import DPMSolver
from .agent_file import read_agent
from .chosen_timesteps import ChosenTimesteps
from .policy import policy_in

log = logging.getLogger(__name__)

SHIPPED = ASSETS / "policies"
ENVIRONMENT = "TimestepEnv"


@dataclass(eq=False, repr=False)
class LearnedScheduler(SchedulerCore):
    """DPM-Solver++(2M) whose next timestep a policy of `train.py task=policy` chooses, as in `TimestepEnv`.

    Before every step but the last the policy sees what `TimestepEnv` observes, statistics over the whole batch, and
    its mean action says how far to go. So an image depends on those it is drawn with. A policy that may stop ends the
    run where its second action says so.

    `timesteps` is the prior grid to begin with; a loop over it comes to the timesteps that were chosen, and ends where
    the policy stopped. What a caller takes from it, e.g. a slice, is a copy.

    Args:
        path: Agent file of a policy; None: see `find_policy`.
        trained: Folder where train.py task=policy writes by default.
        model: Identity of the model that draws; None: it is not compared, at the caller's risk.
        domain: Name of the domain.
        guidance_scale: Weight of classifier-free guidance.
        num_inference_steps: Steps that the policy is to be for; None: as the one there is.
        num_train_timesteps, ...: See `SchedulerCore`.

    Raises:
        Unusable: if there is no such policy, or it was trained for something else.
        ValueError: for a value out of range.
    """

    path: str | None = None
    trained: str | None = None
    model: str | None = None
    domain: str = "landscapes"
    guidance_scale: float = 1.0
    num_inference_steps: int | None = None
    num_train_timesteps: int = field(default=1000, kw_only=True)  # the policy comes first

    def __post_init__(self) -> None:
        super().__post_init__()
        model = None if self.model is None else identity_of(self.model, self.guidance_scale)
        wanted = Wanted(model, self.domain, self.config["num_inference_steps"])
        self.file, header, tensors = find_policy(self.path, self.trained, wanted)
        self._config["_policy"] = header["hash"]  # what `path` does not tell
        self.policy = policy_in(self.file, header, tensors)

        known = header["environment"]
        one_hot = np.array([float(name == self.domain) for name in known["domains"]])
        self.route = Residuals(self.schedule, np.array(known["prior"], np.float64), one_hot, known["stopping"])
        self.source, self.may_stop = describe_path(self.file), self.route.stopping
        self.set_timesteps()

    def set_timesteps(self, num_inference_steps: int | None = None, *, timesteps: Any = None) -> None:
        """Begin a run, at pure noise.

        Args:
            num_inference_steps: As many as the policy was trained for; None: the same.
            timesteps: Not taken: the policy chooses them.

        Raises:
            ValueError: for another number of steps, or timesteps.
        """
        if timesteps is not None:
            raise ValueError(
                "a policy chooses its timesteps itself, from pure noise on: leave grid and init_image out, or take "
                "another scheduler"
            )
        if num_inference_steps not in (None, self.route.budget):
            trained = count(self.route.budget, "step")
            raise Unusable(
                f"the policy in {self.file} was trained for {trained}, got {num_inference_steps}; train one",
                "policy",
                domain=self.domain,
                num_steps=num_inference_steps,
                guidance_scale=self.guidance_scale,
            )

        super().set_timesteps(timesteps=self.route.prior)
        self.chosen = {}  # another one begins with its own policy's
        self.timesteps: Any = ChosenTimesteps(self.route.prior)
        self._prior_nodes = tuple(self._nodes)
        self._grid_memory: GridMemory = ()

    def suit(self, model: str, domain: str | None, guidance_scale: float | Guidance | None) -> None:
        """Refuse another domain than the policy's, and warn of another model or guidance; see `SchedulerCore.suit`."""
        if domain not in (None, self.domain):
            raise Unusable(f"the policy in {self.file} was trained for domain={self.domain}, not {domain}")

        # without a domain it is not settled yet what is drawn
        if self.model and model and domain is not None and guidance_scale is not None:
            trained, draws = identity_of(self.model, self.guidance_scale), identity_of(model, guidance_scale)
            if trained != draws:
                log.warning("the policy is for the model %s, and %s draws with it", _short(trained), _short(draws))

    @property
    def grid(self) -> PolicyGrid:
        """See `SchedulerCore`."""
        return PolicyGrid(self.route, self.policy)

    @property
    def solver(self) -> DPMSolver:
        """See `SchedulerCore`."""
        return DPMSolver(lower_order_final=False)

    def select(self, indices: np.ndarray) -> None:
        """See `SchedulerCore.select`."""
        own = len(self._memory)
        self._memory = (*self._memory, *self._grid_memory)
        super().select(indices)
        self._memory, self._grid_memory = self._memory[:own], self._memory[own:]

    def _locate(self, timestep: Any) -> int:
        index = super()._locate(timestep)
        if index not in (0, self._next):
            raise ValueError(
                f"timestep {self.timesteps[index]:g} is not due: the steps of a policy are taken in their order"
            )
        if index == 0:  # a sampler, or steps by hand, may have come along here before
            self._begin_anew()
        return index

    def _begin_anew(self) -> None:
        self.timesteps.begin(self.route.prior)
        self._nodes, self._grid_memory = list(self._prior_nodes), ()

    def _then(self, trail: Sequence[Node], x0: mx.array) -> Node:
        then, self._grid_memory = self.grid.next(trail, x0, self._grid_memory)
        return then

    def follow(self, trail: Sequence[Node], then: Node, x0: mx.array, error: mx.array | None) -> None:
        """See `SchedulerCore`: the node that was chosen is the next timestep, for loops over the timesteps too."""
        taken = len(trail)
        if taken == 1 and len(self) < self.route.budget:  # the run before was stopped
            self._begin_anew()
        if then.clean:
            self.timesteps.end_after(taken - 1)
            self._nodes[taken:] = [then]
        else:
            self.timesteps.choose(taken, then.t)
            self._nodes[taken] = then


class Wanted(NamedTuple):
    """What a policy is looked for.

    Attributes:
        model: What decides the predictions, see `identity_of`; None: anything.
        domain: Name of the domain.
        num_steps: Number of steps; None: any.
    """

    model: str | None
    domain: str
    num_steps: int | None

    def training(self) -> dict[str, Any]:
        """The settings of the training that makes it."""
        guidance = None if self.model is None else guidance_in(self.model)
        return {"domain": self.domain, "num_steps": self.num_steps, "guidance_scale": guidance}

    def differs(self, header: Mapping[str, Any]) -> str:
        """What a policy was trained for instead, "" if it fits; the header is that of its file."""
        known = header["environment"]
        if known["environment"] != ENVIRONMENT:
            return f"in {known['environment']}, not in {ENVIRONMENT}"
        if self.model is not None and header.get("model") != self.model:
            return f"for the model {_short(header.get('model'))}, and this one is {_short(self.model)}"
        if (header.get("domain") or self.domain) != self.domain:
            return f"for domain={header['domain']}, not {self.domain}"
        if self.num_steps not in (None, known["num_steps"]):
            return f"for {count(known['num_steps'], 'step')}, not {self.num_steps}"
        return ""


class Found(NamedTuple):
    """The file of a policy, and what was read from it, see `read_agent`."""

    file: Path
    header: dict[str, Any]
    tensors: dict[str, np.ndarray]


def find_policy(path: str | Path | None, trained: str | Path | None, wanted: Wanted) -> Found:
    """The file of a policy, read.

    Args:
        path: The file; None: one that fits, of those in `trained`, or else of those that ship.
        trained: Folder where train.py task=policy writes by default, or None.
        wanted: What it must have been trained for.

    Raises:
        Unusable: if there is none, or it was trained for something else, or several numbers of steps are offered and
            none is wanted.
    """
    if path is not None:
        given = Found(Path(path), *read_agent(path))
        if differs := wanted.differs(given.header):
            raise Unusable(f"the policy in {path} was trained {differs}; train one", "policy", **wanted.training())
        return given

    for folder in (trained, SHIPPED):
        found = {policy.header["environment"]["num_steps"]: policy for policy in _fitting(folder, wanted)}
        if len(found) > 1:
            offered = ", ".join(map(str, sorted(found)))
            raise Unusable(f"{folder} has policies for {offered} steps; say which, e.g. num_steps={max(found)}")
        if found:
            return next(iter(found.values()))

    steps = "" if wanted.num_steps is None else f" with {count(wanted.num_steps, 'step')}"
    model = "this model" if wanted.model is None else f"the model {_short(wanted.model)}"
    raise Unusable(
        f"no policy was trained for domain={wanted.domain} of {model}{steps}; train one", "policy", **wanted.training()
    )


def _fitting(folder: str | Path | None, wanted: Wanted) -> Iterator[Found]:
    """Policies of a folder that fit."""
    for file in sorted(Path(folder).glob(f"{wanted.domain}_*.zip")) if folder is not None else ():
        found = Found(file, *read_agent(file))
        if not wanted.differs(found.header):
            yield found


def _short(model: str | None) -> str:
    """An identity, with the beginning of its hash."""
    name, _, rest = (model or "unknown").partition(" ")
    return f"{name:.12} {rest}".strip()

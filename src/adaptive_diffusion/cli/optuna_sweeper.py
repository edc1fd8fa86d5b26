"""`hydra/sweeper=optuna`: a sweep whose jobs are chosen by Optuna (Akiba et al., 2019), by what earlier jobs measured.

The space stands on the command line, as in other sweeps: `num_steps=5,8,10`, `guidance.weight=interval(1,2)`.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from ..diffusion.checks import check_choice, check_count, check_seed
from ..errors import MissingPackage, UserError
from ..io.counted import count
from ..program import pip_install
from ..runs.output import rows_text, say
from ..tracking.jobs import DONE, Job, jobs_of

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

SAMPLERS = {"tpe": "TPESampler", "cmaes": "CmaEsSampler", "nsga2": "NSGAIISampler", "random": "RandomSampler"}
DIRECTIONS = ("minimize", "maximize")
WORDS = {"objectives": "list of hydra.sweeper.objectives", "space": "space of settings"}  # what a study keeps
MOST_IN_VAIN = 3  # batches in a row without a trial


class StudySweeper(Sweeper):
    """Asks a study which settings to try next, and tells it what each job measured.

    Args:
        objectives: Metric of a job, such as `quality/perceptual_encoder` -> `minimize` or `maximize`; several make a
            Pareto front.
        study: Name of the study; a study of this name in the storage goes on.
        storage: File of the study, which several sweeps may share.
        trials: Jobs of the study that have to finish in all, >= 1; those of earlier sweeps count.
        at_once: Jobs that are started together, >= 1; more than 1 wants a launcher that runs them side by side.
        sampler: One of `SAMPLERS`; cmaes takes numbers and one objective.
        seed: Of the sampler, >= 0; with the number of trials so far, it decides what a batch draws.
        params: Must be empty: the combinations of an experiment, which are those of Hydra's own sweeper.

    Raises:
        ValueError: for a value out of range.
        UserError: for settings that do not fit each other.
        MissingPackage: where Optuna is not installed.
    """

    def __init__(
        self,
        *,
        objectives: Mapping[str, str] | None = None,
        study: str,
        storage: str,
        trials: int,
        at_once: int,
        sampler: str,
        seed: int,
        params: Mapping[str, Any] | None = None,
    ):
        try:
            import optuna
        except ImportError as error:
            raise MissingPackage(
                f"hydra/sweeper=optuna needs {error.name}, which is not installed: {pip_install('tune')}"
            ) from error
        if params:
            raise UserError(
                "hydra/sweeper=optuna takes no hydra.sweeper.params, the combinations of an experiment: leave the "
                "experiment out and give the settings on the command line, or leave hydra/sweeper=optuna out"
            )
        if not objectives:
            raise UserError(
                "hydra.sweeper.objectives must name a metric of a job and minimize or maximize, e.g. "
                "'+hydra.sweeper.objectives={quality/perceptual_encoder: minimize}'"
            )
        for direction in objectives.values():
            check_choice("hydra.sweeper.objectives", direction, DIRECTIONS)
        self._optuna: Any = optuna
        self.objectives = dict(objectives)
        self.study, self.storage = study, Path(storage)
        self.trials = check_count("hydra.sweeper.trials", trials, 1)
        self.at_once = check_count("hydra.sweeper.at_once", at_once, 1)
        check_choice("hydra.sweeper.sampler", sampler, list(SAMPLERS))
        if sampler == "cmaes" and len(objectives) > 1:
            raise UserError(
                f"hydra.sweeper.sampler=cmaes takes one objective, got {len(objectives)}: use tpe or nsga2, or give "
                "one by '~hydra.sweeper.objectives' '+hydra.sweeper.objectives={METRIC: minimize}'"
            )
        self.sampler = sampler
        self.seed = check_seed("hydra.sweeper.seed", seed)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra once."""
        self._config, self._loader = config, hydra_context.config_loader
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> list[JobReturn]:
        """Run jobs until the study has its trials; what they returned."""
        overrides = OverridesParser.create(config_loader=self._loader).parse_overrides(arguments)
        swept = [override for override in overrides if override.is_sweep_override()]
        space = {override.get_key_element(): self._distribution(override) for override in swept}
        self._check_numbers(space)
        fixed = [str(o.input_line) for o in overrides if o not in swept and o.get_key_element() not in space]
        folder = Path(self._config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self._config, folder / "multirun.yaml")

        study, returned, in_vain = self._study(space), list[JobReturn](), 0
        while (left := self.trials - len(self._finished(study))) > 0:
            study.sampler = self._sampler(len(study.trials))
            asked = [study.ask(space) for _ in range(min(self.at_once, left))]
            jobs = [[*fixed, *(f"{key}={value}" for key, value in trial.params.items())] for trial in asked]
            try:
                results = self._launcher.launch(jobs, initial_job_idx=len(returned))
                ended = jobs_of(folder)[len(returned) :]
                learned = self._tell(study, asked, ended)
            finally:  # also if the sweep is interrupted: no trial is left open
                for trial in asked:
                    study.tell(trial, state=self._optuna.trial.TrialState.FAIL, skip_if_finished=True)
            returned.extend(results)
            in_vain = 0 if learned else in_vain + 1
            if in_vain == MOST_IN_VAIN:  # such jobs do not count as trials: it would never end
                say(f"stopped    no job was a trial {MOST_IN_VAIN} times in a row: nothing is learned")
                break

        say(self._best(study))
        if in_vain == MOST_IN_VAIN:
            _ = [result.return_value for result in results]  # raises what a job failed of, as Hydra's own sweeper does
            raise UserError(
                f"hydra.sweeper.objectives: the jobs measured no number as {' and '.join(self.objectives)}; "
                f"there are {', '.join(sorted(_numbers(ended[-1]))) or 'none'}"
            )
        return returned

    def _check_numbers(self, space: Mapping[str, BaseDistribution]) -> None:
        """Refuse choices where the sampler takes numbers alone: Optuna would draw them at random."""
        choices = [key for key, values in space.items() if hasattr(values, "choices")]
        if self.sampler == "cmaes" and choices:
            raise UserError(
                f"hydra.sweeper.sampler=cmaes takes numbers, {choices[0]}=interval(low,high), and no choices; "
                "for choices use tpe or nsga2"
            )

    def _study(self, space: Mapping[str, BaseDistribution]) -> Any:
        """The study in the storage, or a new one.

        Raises:
            UserError: if the one in the storage has other objectives or another space, whose values mean other things.
        """
        optuna = self._optuna
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.storage.parent.mkdir(parents=True, exist_ok=True)
        backend = optuna.storages.journal.JournalFileBackend(str(self.storage))
        study = optuna.create_study(
            storage=optuna.storages.JournalStorage(backend),
            study_name=self.study,
            directions=list(self.objectives.values()),
            load_if_exists=True,
        )
        given = {
            "objectives": [list(objective) for objective in self.objectives.items()],
            "space": {key: optuna.distributions.distribution_to_json(values) for key, values in space.items()},
        }
        if not study.trials and not study.user_attrs:
            for name, value in given.items():
                study.set_user_attr(name, value)
        for name, value in given.items():
            if study.user_attrs.get(name) != value:
                raise UserError(
                    f"the study {self.study!r} in {self.storage} was begun with another {WORDS[name]}; "
                    "hydra.sweeper.study=NAME begins a new one"
                )
        return study

    def _sampler(self, trials: int) -> Any:
        """A sampler for what comes after so many trials: a study that goes on never draws the same numbers again."""
        seed = np.random.SeedSequence((self.seed, trials)).generate_state(1)[0]
        return getattr(self._optuna.samplers, SAMPLERS[self.sampler])(seed=int(seed))

    def _finished(self, study: Any) -> list[Any]:
        return [trial for trial in study.trials if trial.state.is_finished() and trial.values is not None]

    def _tell(self, study: Any, asked: Sequence[Any], jobs: Sequence[Job]) -> bool:
        """Tell the study what the jobs measured; whether any of them measured all that it asks for."""
        learned = False
        for trial, job in zip(asked, jobs, strict=True):
            if job.status not in DONE:
                continue
            numbers = _numbers(job)
            if lacking := [name for name in self.objectives if name not in numbers]:
                say(f"job {job.number} is no trial: it measured no number as {' and '.join(lacking)}")
                continue
            study.tell(trial, [numbers[name] for name in self.objectives])
            learned = True
        return learned

    def _best(self, study: Any) -> str:
        """What was found: the best trial, or those of the Pareto front."""
        done = f"{len(self._finished(study))} of {count(self.trials, 'trial')}"
        best = []
        for trial in study.best_trials:
            values = ", ".join(f"{name} {value:.4g}" for name, value in zip(self.objectives, trial.values, strict=True))
            best.append(f"{shlex.join(f'{k}={v}' for k, v in trial.params.items())}   ({values})")
        finished = f"{self.study} in {self.storage}: {done} have finished"
        return rows_text({"study": finished, **({"best": "\n".join(best)} if best else {})})

    def _distribution(self, override: Override) -> BaseDistribution:
        """The values of a setting that are tried."""
        distributions, sweep = self._optuna.distributions, override.value()
        if isinstance(sweep, IntervalSweep):
            whole = {type(sweep.start), type(sweep.end)} == {int}  # as of int(interval(4,12))
            numbers = distributions.IntDistribution if whole else distributions.FloatDistribution
            return numbers(sweep.start, sweep.end, log="log" in sweep.tags)
        if isinstance(sweep, RangeSweep):
            return distributions.CategoricalDistribution([*override.sweep_iterator()])
        return distributions.CategoricalDistribution([*override.sweep_string_iterator()])


def _numbers(job: Job) -> dict[str, float]:
    """What a job measured, without NaN."""
    return {name: value for name, value in job.metrics.items() if not np.isnan(value)}

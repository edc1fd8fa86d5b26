"""Give the programs settings that make no sense: each is refused in one sentence, before anything is made.

    python -m tests.faults.settings --count 200 --seed 0

They are drawn in equal parts from all numbers of many configurations, with values of another kind or with misspelled
names; from choices that do not exist or belong to the other program; and from a list of values out of range. Exit code
1 if anything was wrong.
"""

from __future__ import annotations

import argparse
import itertools
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import BooleanNode, DictConfig, FloatNode, IntegerNode, OmegaConf

from tests.faults import zygote
from tests.faults.kills import JOBS, MODEL, prepared
from tests.faults.zygote import ROOT

SECONDS = 40  # after so long, a setting counts as accepted

TINY = [*("num_samples=1", "num_steps=2", "metrics=none", "model=checkpoint", "model.path={folder}/tiny.safetensors")]
AGENT = ["agent=ppo", *MODEL, "domain=portraits", "task.episodes=4", "task.pictures=2", "task.batches=1"]

# what is given besides the bad setting: a job that takes a moment if the setting is accepted
SITUATIONS = {
    **{f"sample {s}": [*TINY, f"scheduler={s}"] for s in ("adaptive", "ddim", "ddpm", "dpm_solver", "unipc", "ipndm")},
    **{f"sample {s}": [*TINY, f"sampler={s}"] for s in ("quality_guided", "step_reduction")},
    "sample init_image": [*TINY, "init_image={folder}/picture.png"],
    "train model": JOBS["model"].arguments,
    "train encoder": JOBS["encoder"].arguments,
    "train schedule": JOBS["schedule"].arguments,
    "train agent": AGENT,
    "train cem": ["agent=cem", *AGENT[1:]],
    "train policy": JOBS["policy"].arguments,
}
OTHER_KIND = {
    IntegerNode: ("ten", "1.5", "[1]", "{a: 1}", "nan"),
    FloatNode: ("half", "[0.5]", "{a: 1}", "nan"),
    BooleanNode: ("maybe", "[true]", "{a: 1}"),
}
GROUPS = {
    "sample": ("scheduler", "grid", "sampler", "model", "domain", "metrics", "tracking", "debug", "experiment"),
    "train": ("task", "agent", "reward", "domain", "tracking", "experiment"),
}
OF_THE_OTHER = {
    "sample": ("agent=ppo", "agent=random", "reward=speed", "task=model", "task=agent", "experiment=train_encoder"),
    "train": ("scheduler=ddim", "sampler=standard", "grid=karras", "model=builtin", "metrics=none", "debug=smoke"),
}
OUT_OF_RANGE = {
    "sample adaptive": (
        *(
            "num_samples=0",
            "num_samples=-3",
            "num_samples=100000000000",
            "num_steps=0",
            "num_steps=1001",
            "batch_size=0",
        ),
        *("seed=-1", "guidance_scale=-1", "guidance_scale=inf", "image_size=0", "image_size=1000000", "variation=1.5"),
        *("variation=-0.1", "label=nosuchlabel", "init_image=/nowhere.png", "model.path=/nowhere"),
        *("paths.mlruns=", "tags=one", "tracking=mlflow tracking.lock_timeout=0", "skip_finished=perhaps"),
        *("tracking=mlflow tracking.lock_timeout=inf", "tracking=mlflow tracking.ui_port=0", "num_steps=inf"),
        *("tracking=mlflow tracking.ui_port=70000", "tracking=mlflow tracking.database=https://a.example/b"),
        *(
            "tracking=mlflow tracking.artifacts=s3://bucket",
            "scheduler.max_step_ratio=-1",
            "scheduler.progress_power=-1",
        ),
        *(
            "scheduler.num_train_timesteps=0",
            "scheduler.beta_start=-1",
            "scheduler.prediction_type=guess",
            "sampler=[1]",
            *(f"{part}._target_=collections.OrderedDict" for part in ("scheduler", "sampler", "metrics", "tracking")),
            *(f"{part}._target_=adaptive_diffusion.encoder.captions.plain_caption" for part in ("model", "sampler")),
            "grid._target_=collections.OrderedDict",
        ),
    ),
    "sample init_image": ("strength=0", "strength=-0.5", "strength=2", "strength=nan", "strength=inf"),
    "sample ddim": ("scheduler.eta=-1", "scheduler.eta=2", "+scheduler.clip_sample_range=-1"),
    "sample quality_guided": ("sampler.quality_threshold=2", "sampler.quality_threshold=-1", "sampler.patience=0"),
    "sample step_reduction": ("sampler.quality_target=2", "sampler.quality_target=-1"),
    "train model": (
        *("task.images=0", "task.images=-5", "task.batch_size=0", "task.learning_rate=0", "task.learning_rate=-1"),
        *(
            "task.learning_rate=1e10",
            "task.learning_rate=inf",
            "task.ema_decay=1",
            "task.ema_decay=-0.1",
            "task.seed=-1",
        ),
        *("task.min_snr_gamma=-1", "task.min_snr_gamma=0", "task.warmup_images=-1", "task.decay_images=-1"),
        *("task.validation_images=-1", "task.validate_every=0", "task.save_every=0", "task.log_every=0"),
        *("task.preview_every=0", "task.preview_steps=0", "task.preview_steps=2000", "task.preview_samples=0"),
        *("output=model.bin", "task.state=state.npz"),
        *("task.architecture.widths=[]", "task.architecture.image_size=7", "task.architecture.in_channels=0"),
        *(
            "task.seed=18446744073709551616",
            "task.noise_schedule.num_train_timesteps=2",
            "task.noise_schedule.beta_schedule=guess",
        ),
        *("task.label_dropout=2", "task.label_dropout=-1", "task.prediction_type=guess", "+task.data.dogs=/nowhere"),
    ),
    "train encoder": (
        *("task.images=0", "task.batch_size=0", "task.learning_rate=-1", "task.ema_decay=1", "task.widths=[]"),
        *("task.widths=[0]", "task.dimension=0", "task.image_size=0", "task.validation_fraction=0", "task.seed=-1"),
        *(
            "task.seed=99999999999",
            "task.validation_fraction=1",
            "task.validation_fraction=-1",
            "task.save_every=0",
            "task.weight_decay=-1",
        ),
        *("output=encoder.npz", "task.data.landscapes=/nowhere", "task.data.general=null"),
    ),
    "train schedule": (
        *("task.steps=[]", "task.steps=[0]", "task.domains=[]", "task.domains=[nowhere]", "task.noises=0"),
        *("task.held_out=0", "task.iterations=-1", "task.batch_size=0", "task.guidance_scale=-1", "output=a.txt"),
        *("task.guidance_scale=inf", "task.nodes=7", "task.seed=-1"),
    ),
    "train agent": (
        *("task.episodes=0", "task.pictures=0", "task.batches=0", "task.verification_batches=0", "task.min_steps=0"),
        *("task.max_steps=0", "task.num_steps=100", "task.guidance_scale=-1", "reward.weight=2", "reward.weight=-1"),
        *(
            "agent.seed=99999999999999999999",
            "agent._target_=pathlib.Path",
            "reward._target_=pathlib.Path",
            "agent.learning_rate=-1",
            "agent.learning_rate=1e6",
            "agent.n_steps=1",
            "agent.batch_size=1",
            "task.start_from=/nowhere.zip",
        ),
        "output=tuned.yaml",
    ),
    "train policy": (
        "task.num_steps=0",
        "task.episodes=0",
        "task.pictures=0",
        "task.noise_seed=-1",
        "domain.name=../../up",
    ),
}


@dataclass(frozen=True)
class Case:
    """A bad setting, or several, and the situation it is given in."""

    situation: str
    given: str

    @property
    def program(self) -> str:
        """sample or train."""
        return self.situation.partition(" ")[0]


def main(arguments: list[str]) -> int:
    """Draw the settings, give them, and print what was wrong."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--count", type=int, default=200, help="bad settings; 0: all there are")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--base", type=Path, help="a folder of `tiny.tiny_folder`; one is made if none is given")
    given = options.parse_args(arguments)
    zygote.prepare(*([] if 0 < given.count < 20 else ["stable_baselines3"]))  # few settings reach it
    folder, verdicts = Path(tempfile.mkdtemp()), Counter[str]()
    try:
        base = given.base or prepared(folder / "base")
        shutil.copy(next(ROOT.glob("docs/*.png")), base / "picture.png")
        for number, case in enumerate(drawn(base, given.count, random.Random(given.seed))):
            trial = folder / f"trial {number}"
            shutil.copytree(base, trial)
            verdict, told = judged(case, trial)
            verdicts[verdict] += 1
            if verdict != "refused":
                print(f"{case.situation}, {case.given}: {verdict}: {told}", flush=True)
            shutil.rmtree(trial)
    finally:
        shutil.rmtree(folder)
    print(", ".join(f"{verdict}: {count}" for verdict, count in sorted(verdicts.items())))
    return int(set(verdicts) != {"refused"})


def drawn(folder: Path, count: int, chance: random.Random) -> list[Case]:
    """As many bad settings, in equal parts of each sort as far as they last; all of them for 0."""
    sorts = [list(sort) for sort in (of_another_kind(folder), choices(), out_of_range())]
    for sort in sorts:
        chance.shuffle(sort)
    cases = [case for row in itertools.zip_longest(*sorts) for case in row if case is not None]
    return cases[: count or None]


def of_another_kind(folder: Path) -> Iterator[Case]:
    """Numbers that are none, and names that nothing has."""
    for situation, given in SITUATIONS.items():
        for key, node in numbers(configured(situation, given, folder)):
            for value in OTHER_KIND[type(node)]:
                yield Case(situation, f"{key}={value}")
            yield Case(situation, f"{key[:-2]}{key[-1]}x={node._value()}")


def choices() -> Iterator[Case]:
    """Choices that a group does not have, and groups that a program does not have."""
    for program, groups in GROUPS.items():
        situations = [situation for situation in SITUATIONS if situation.startswith(program)]
        for group, value in itertools.product(groups, ("nosuchthing", "5", "[a]")):
            yield Case(situations[0], f"{group}={value}")
        for situation, override in itertools.product(situations, OF_THE_OTHER[program]):
            yield Case(situation, override)


def out_of_range() -> Iterator[Case]:
    """Values that a setting's description rules out."""
    for situation, settings in OUT_OF_RANGE.items():
        yield from (Case(situation, setting) for setting in settings)


def configured(situation: str, given: list[str], folder: Path) -> DictConfig:
    """The configuration of a situation."""
    from tiny import configuration

    program = situation.partition(" ")[0]
    return configuration(program, folder, *(argument.format(folder=folder) for argument in given))


def numbers(cfg: DictConfig, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The settings that take a number, or true or false."""
    for key in cfg:
        node = cfg._get_node(key)
        if OmegaConf.is_dict(node) and not node._is_none():
            yield from numbers(node, f"{prefix}{key}.")
        elif type(node) in OTHER_KIND and not node._is_interpolation():
            yield f"{prefix}{key}", node


def judged(case: Case, folder: Path) -> tuple[str, str]:
    """What a program makes of a bad setting: `refused` is right, and whatever else wrong; with what it said last."""
    paths = ["paths.outputs={folder}/outputs", "paths.mlruns={folder}/mlruns", "tracking=none"]
    arguments = [a.format(folder=folder) for a in [*SITUATIONS[case.situation], *paths]] + case.given.split(" ", 1)
    program = zygote.run(ROOT / f"{case.program}.py", arguments, folder, SECONDS)
    lines = program.output.strip().splitlines() or [""]
    if "Traceback" in program.output:
        return "traceback", lines[-1]
    if "unexpected" in program.output:
        return "unexpected", lines[-1]
    if program.code is None:
        return "accepted, or takes long", lines[-1]
    if program.code == 0:
        return "accepted", lines[-1]
    if program.code != 2:
        return f"code {program.code}", lines[-1]
    return ("refused", lines[-1]) if len(lines) == 1 else ("more than a sentence", lines[0])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

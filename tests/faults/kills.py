"""Kill the programs at random moments and start them again: nothing stays open, nothing that was saved is lost.

    python -m tests.faults.kills --count 300 --seed 0

Each trial starts one of eight jobs, ends it by KILL, TERM or INT at a random moment of its time, looks at what it left,
and gives the same command again, which must succeed. Exit code 1 if anything was wrong.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from tests.faults import zygote
from tests.faults.zygote import ROOT, TESTS, Program

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
EARLY = 2.0  # seconds of a real process in which it mostly imports
MODEL = ["model@task.model=checkpoint", "task.model.path={folder}/tiny.safetensors"]


@dataclass(frozen=True)
class Job:
    """A command whose time is short.

    Attributes:
        script: The program.
        arguments: Its command line; {folder} stands for the trial's folder.
        result: A file that must come out the same however often the job was killed, if there is one.
        images: How many images there must be at the end, at least.
    """

    script: Path
    arguments: list[str]
    result: str | None = None
    pictures: int = 0


def _train(*arguments: str, result: str | None = None) -> Job:
    return Job(ROOT / "train.py", list(arguments), result)


def _sample(*arguments: str, pictures: int = 0, script: Path = ROOT / "sample.py") -> Job:
    return Job(script, [*arguments, "model=checkpoint", "model.path={folder}/tiny.safetensors"], None, pictures)


JOBS = {
    "sample": _sample("num_samples=12", "num_steps=20", "batch_size=4", pictures=12),
    "sweep": _sample(
        *("-m", "scheduler=ddim,adaptive", "num_steps=2,3", "num_samples=2", "metrics.converged=false"),
        pictures=8,
    ),
    "model": _train(
        *("task=model", "task.images=960", "task.batch_size=16", "task.validate_every=160", "task.save_every=32"),
        *("task.warmup_images=0", "task.decay_images=32", "task.validation_images=4", "task.log_every=64"),
        "task.architecture={{image_size: 8, widths: [8, 16], blocks: [1, 1], attention_levels: [], embedding_dim: 16}}",
        *("task.preview_every=320", "task.preview_samples=2", "task.preview_steps=2"),
        "+task.data.cats={folder}/cats.npz",
        result="outputs/model/model.safetensors",
    ),
    "encoder": _train(
        *("task=encoder", "task.images=4000", "task.batch_size=16", "task.save_every=160", "task.validate_every=800"),
        *("task.widths=[8]", "task.dimension=4", "task.image_size=8"),
        *("task.data.landscapes={folder}/cats.npz", "task.data.general={folder}/cats.npz"),
        result="outputs/encoder/encoder.safetensors",
    ),
    "schedule": _train(
        *("task=schedule_thorough", *MODEL, "task.domains=[landscapes,portraits]", "task.steps=[2,3]"),
        "task.learned_steps=[3]",
        *("task.noises=4", "task.held_out=3", "task.learned_noises=2", "task.iterations=1", "task.batch_size=4"),
    ),
    "agent": _train(
        *("agent=cem", *MODEL, "domain=portraits", "task.episodes=40", "task.pictures=2", "task.batches=1"),
        "task.verification_batches=2",
    ),
    "policy": _train(
        *("task=policy", "agent=ppo", *MODEL, "domain=portraits", "task.num_steps=4", "task.episodes=20"),
        *("task.pictures=2", "task.batches=1"),
    ),
    "benchmark": _sample(
        *("-m", "experiment=benchmark", "scheduler=ddim,ddpm", "grid=uniform,karras", "num_steps=2", "num_samples=4"),
        *("benchmark.seed_blocks=2", "domain=portraits", "benchmark.tolerance=0.05"),
        script=TESTS / "benchmark_program.py",
    ),
}


@dataclass
class Tally:
    """What came of the trials."""

    trials: int = 0
    wrong: list[str] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)


def main(arguments: list[str]) -> int:
    """Run the trials and print what was wrong."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--count", type=int, default=300, help="kills")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--jobs", nargs="+", default=list(JOBS), choices=list(JOBS))
    options.add_argument("--base", type=Path, help="a folder of `tiny.tiny_folder`; one is made if none is given")
    given = options.parse_args(arguments)
    zygote.prepare(*(["stable_baselines3"] if "policy" in given.jobs else []))
    tally, chance, folder = Tally(), random.Random(given.seed), Path(tempfile.mkdtemp())
    try:
        base = given.base or prepared(folder / "base")
        whole = {name: _uninterrupted(name, base, folder / f"whole {name}", tally) for name in given.jobs}
        while tally.trials < given.count and (alive := [name for name in given.jobs if whole[name] is not None]):
            number = tally.trials
            trial, name = folder / f"trial {number}", alive[number % len(alive)]
            shutil.copytree(base, trial)
            _trial(number, name, trial, whole[name], chance, tally)
            shutil.rmtree(trial)
    finally:
        shutil.rmtree(folder)  # no TemporaryDirectory: the children, too, would remove it when they end
    print(f"{tally.trials} kills, {len(tally.wrong)} things wrong; " + _counts(tally.notes))
    return int(bool(tally.wrong))


@dataclass(frozen=True)
class Whole:
    """A job that nobody interrupted: its seconds, and what its result holds."""

    seconds: float
    result: bytes | None


def prepared(base: Path) -> Path:
    """A folder with a model, images and an empty database, made by another process since that computes."""
    make = f"from pathlib import Path; import tiny; tiny.tiny_folder(Path({str(base)!r}))"
    subprocess.run([sys.executable, "-c", make], cwd=TESTS, check=True)
    return base


def _command(name: str, folder: Path) -> list[str]:
    paths = ["paths.outputs={folder}/outputs", "paths.mlruns={folder}/mlruns"]
    return [argument.format(folder=folder) for argument in (*JOBS[name].arguments, *paths)]


def _uninterrupted(name: str, base: Path, folder: Path, tally: Tally) -> Whole | None:
    shutil.copytree(base, folder)
    started = time.monotonic()
    program = zygote.run(JOBS[name].script, _command(name, folder), folder)
    if program.code != 0:
        tally.wrong.append(f"{name} ends with {program.code} by itself: {_last(program)}")
        print(tally.wrong[-1], flush=True)
        return None
    seconds = time.monotonic() - started
    print(f"{name}: {seconds:.1f} s", flush=True)
    return Whole(seconds, _result(name, folder))


def _trial(number: int, name: str, folder: Path, whole: Whole, chance: random.Random, tally: Tally) -> None:
    """Kill the job once, or a second time after it was started again, and let it end at last."""
    job, wrong = JOBS[name], []
    for _ in range(chance.choice((1, 1, 2))):
        how, share, early = chance.choice(SIGNALS), chance.random(), chance.random() < 0.05
        tally.trials += 1
        if early:
            wrong += _killed_early(job.script, _command(name, folder), folder, how, share * EARLY)
            continue
        program = Program(job.script, _command(name, folder), folder)
        if program.wait(share * whole.seconds) is None:
            program.send(how)
            if program.wait(zygote.PATIENCE) is None:
                wrong.append(f"{how.name} does not end it")
                program.end()
        tally.notes[f"{how.name} {program.code}"] += 1
        wrong += (
            _complaints(program.output, program.code, how) + list(_unreadable(folder)) + list(_lost(program, folder))
        )
        tally.notes["files left half written"] += len(list(folder.rglob(".*.partial*")))
    last = zygote.run(job.script, _command(name, folder), folder)
    if last.code != 0:
        wrong.append(f"the same command, given again, ends with {last.code}: {_last(last)}")
    wrong += [*_unreadable(folder), *_lost(last, folder), *_open(folder), *_missing(folder)]
    if "-m" in job.arguments:  # a run by itself is drawn again, also if the signal came when it had finished
        wrong += _repeated(folder)
    if last.code == 0 and _result(name, folder) != whole.result:
        wrong.append("the result is another one than that of an uninterrupted job")
    drawn = len(list(folder.glob("outputs/**/pictures/*.png")))
    if last.code == 0 and drawn < job.pictures:
        wrong.append(f"{drawn} images, not {job.pictures}")
    for sentence in wrong:
        tally.wrong.append(f"trial {number}, {name}: {sentence}")
        print(tally.wrong[-1], flush=True)


def _killed_early(script: Path, command: list[str], folder: Path, how: int, delay: float) -> list[str]:
    """Kill a process of its own, which has yet to import."""
    begin = (
        "import os, runpy, sys; os.write(1, b'-'); del sys.argv[0]; sys.path[0] = os.path.dirname(sys.argv[0]); "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", begin, str(script), *command],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    process.stdout.read(1)  # Python itself has begun, which no script can help
    time.sleep(delay + 0.1)
    process.send_signal(how)
    out, _ = process.communicate(timeout=zygote.PATIENCE)
    return _complaints(out.decode(errors="replace"), process.returncode, how)


def _complaints(output: str, code: int | None, how: int) -> list[str]:
    """What a user should not read, or an exit code that is not that of an end or of an interruption."""
    signs = [
        sign for sign in ("Traceback", "unexpected", "_invalidate_flags_cache", "Exception ignored") if sign in output
    ]
    allowed = (0, -how) if how == signal.SIGKILL else (0, 130)
    return [f"says {sign!r}: {output.strip()[-300:]}" for sign in signs] + (
        [] if code in allowed else [f"ends with {code} after signal {how}: {output.strip()[-200:]}"]
    )


def _open(folder: Path) -> Iterator[str]:
    """Runs that are RUNNING though nothing runs, and a database that is damaged."""
    with closing(sqlite3.connect(folder / "mlruns" / "mlflow.db")) as database:
        running = database.execute("SELECT name FROM runs WHERE status = 'RUNNING'").fetchall()
        (whole,) = database.execute("PRAGMA integrity_check").fetchone()
    if running:
        yield f"{len(running)} runs are RUNNING: {running[0][0]}"
    if whole != "ok":
        yield f"the database is damaged: {whole}"


def _repeated(folder: Path) -> Iterator[str]:
    """Runs that did again what had finished."""
    finished = "runs JOIN tags USING (run_uuid) WHERE status = 'FINISHED' AND key = 'fingerprint'"
    with closing(sqlite3.connect(folder / "mlruns" / "mlflow.db")) as database:
        times = database.execute(f"SELECT count(*) FROM {finished} GROUP BY value").fetchall()
    if again := sum(n - 1 for (n,) in times):
        yield f"{again} runs did again what had finished"


def _missing(folder: Path) -> Iterator[str]:
    """Jobs without numbers or images in the table of the last sweep."""
    if tables := sorted(folder.glob("outputs/sweeps/*/*/results.csv")):
        with open(tables[-1], newline="") as file:
            for row in csv.DictReader(file):
                if row["status"] not in ("FINISHED", "SKIPPED") or not list(Path(row["folder"]).glob("pictures/*.png")):
                    yield f"job {row['job']} of the last sweep is {row['status']}, its files in {row['folder']!r}"


def _lost(program: Program, folder: Path) -> Iterator[str]:
    """Files that the program said it had saved, and are not there."""
    for path in re.findall(rf"^saved +({re.escape(str(folder))}\S.*)$", program.output, re.MULTILINE):
        if not Path(path.strip()).exists():
            yield f"{path} was saved and is lost"
    if "the state is saved" in program.output and not list(folder.rglob("state*.safetensors")):
        yield "the state was saved and is lost"


def _unreadable(folder: Path) -> Iterator[str]:
    """Files that cannot be read, but for those that are marked as unfinished."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.name.startswith("."):
            try:
                _read(path)
            except Exception as error:
                yield f"{path.relative_to(folder)} cannot be read: {type(error).__name__}: {error}"


def _read(path: Path) -> None:
    suffix = path.suffix
    if suffix == ".png":
        with Image.open(path) as picture:
            picture.load()
    elif suffix == ".json":
        json.loads(path.read_text())
    elif suffix == ".yaml":
        yaml.safe_load(path.read_text())
    elif suffix == ".safetensors":
        _tensors(path)
    elif suffix in (".npz", ".zip"):
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
    elif suffix == ".npy":
        np.load(path)


def _tensors(path: Path) -> bytes:
    """The numbers in a safetensors file, without what is said of them."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
    assert len(content) == start + max(ends), "its length is another than it says"
    return content[start:]


def _result(name: str, folder: Path) -> bytes | None:
    """What must come out the same; b"" if it is missing."""
    if (file := JOBS[name].result) is None:
        return None
    return _tensors(folder / file) if (folder / file).exists() else b""


def _last(program: Program) -> str:
    return (program.output.strip().splitlines() or [""])[-1]


def _counts(notes: Counter[str]) -> str:
    return ", ".join(f"{what}: {count}" for what, count in sorted(notes.items()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

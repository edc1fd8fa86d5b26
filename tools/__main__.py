"""`python -m tools --data FOLDER`: rebuild the shipped files that are stale.

The shipped files form a chain. Each is stamped with the hashes of the files that it was made from:
word vectors -> encoder -> reference statistics, vicreg -> its reference statistics and clusters, model -> first
predictions, and model -> schedules -> calibration of quality, tuned configurations -> schedules of the tuned guidance,
and policies. The benchmark is measured with them, and the tables of README and docs are made from the benchmark. The
model itself comes from `train.py experiment=train_builtin`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from adaptive_diffusion.calibration.calibrate import ScheduleCalibration
from adaptive_diffusion.diffusion.guidance import identity_of
from adaptive_diffusion.encoder.encoder import BUILTIN_ENCODER, Encoder, load_encoder
from adaptive_diffusion.encoder.reference import FOLDER, load_kernel, load_reference, load_vicreg_reference
from adaptive_diffusion.encoder.vicreg import BUILTIN_VICREG, VICRegEncoder, load_vicreg
from adaptive_diffusion.encoder.words import load_words
from adaptive_diffusion.errors import Unusable, UserError
from adaptive_diffusion.grids.calibrated import merged
from adaptive_diffusion.grids.schedule_file import SHIPPED, load_schedules
from adaptive_diffusion.io.pictures import load_pictures
from adaptive_diffusion.leaving import run_program
from adaptive_diffusion.models.checkpoint import BUILTIN_MODEL, load_model
from adaptive_diffusion.models.checkpoint import VARIABLE as MODEL_VARIABLE
from adaptive_diffusion.optimization.memory import SHIPPED as TUNED
from adaptive_diffusion.optimization.memory import read_records
from adaptive_diffusion.rl.learned_scheduler import SHIPPED as POLICIES
from adaptive_diffusion.rl.learned_scheduler import Wanted, find_policy
from adaptive_diffusion.runs.references import write_reference, write_vicreg_reference
from adaptive_diffusion.sampling.quality import SHIPPED as QUALITY
from adaptive_diffusion.sampling.quality import load_calibration
from benchmarks.quality import plain_curve
from tools.benchmark import REPORT, SUMMARY, commands, stale_benchmark
from tools.benchmark_tables import DOMAINS, read_summary
from tools.curve import stale_curve, write_curve
from tools.first import stale_firsts, write_firsts
from tools.tables import PROJECT, stale_tables, write_tables
from tools.tuned import FOUND

POLICY_STEPS = 8  # of the shipped policies
FEW_STEPS = range(4, 11)  # that are calibrated for guidance that was found, as in conf/experiment/calibrate_tuned.yaml


@dataclass(frozen=True)
class Asset:
    """A shipped file.

    Attributes:
        name: What it is called.
        stale: Returns why it is stale, None if it is not, and raises what is wrong with a file that cannot be used.
        rebuild: Makes it anew.
    """

    name: str
    stale: Callable[[], str | None]
    rebuild: Callable[[], None]

    def reason(self) -> str | None:
        """Why it is stale, or None."""
        try:
            return self.stale()
        except (Unusable, UserError) as error:
            return str(error)


def main(argv: list[str]) -> int:
    """Rebuild the stale assets in the order of the chain."""
    parser = argparse.ArgumentParser(prog="python -m tools", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with <domain>_32.npz for the four domains; not for --check")
    parser.add_argument("--check", action="store_true", help="only say what is stale; exit code 1 if anything is")

    options = parser.parse_args(argv)
    if options.data is None and not options.check:
        raise UserError(
            "to rebuild takes --data; --check alone says what is stale, and python -m tools.tables "
            "makes the tables of README and docs"
        )
    if options.data and (missing := [d for d in DOMAINS if not (options.data / f"{d}_32.npz").is_file()]):
        raise UserError(
            f"{options.data} lacks {', '.join(f'{d}_32.npz' for d in missing)}; give the folder of the images"
        )

    stale = 0
    for asset in chain(options.data or Path()):
        reason = asset.reason()
        print(f"{asset.name:<28}{'up to date' if reason is None else 'stale: ' + reason}", flush=True)

        if reason is not None:
            stale += 1
            if not options.check:
                asset.rebuild()

    return 1 if options.check and stale else 0


def chain(data: Path) -> list[Asset]:
    """The assets, each after those that it is made from."""
    references = [
        Asset(f"reference {d}", partial(read_reference, d), partial(_rebuild_reference, d, data)) for d in DOMAINS
    ]
    vicreg_references = [
        Asset(f"vicreg reference {d}", partial(read_vicreg_reference, d), partial(_rebuild_vicreg_reference, d, data))
        for d in DOMAINS
    ]
    return [
        Asset("word vectors", partial(read, load_words), _rebuild_words),
        Asset("encoder", partial(read, partial(load_encoder, BUILTIN_ENCODER)), partial(_rebuild_encoder, data)),
        *references,
        Asset("vicreg", partial(read, partial(load_vicreg, BUILTIN_VICREG)), partial(_rebuild_vicreg, data)),
        *vicreg_references,
        Asset("first predictions", stale_firsts, write_firsts),
        Asset("schedules", stale_schedules, _rebuild_schedules),
        Asset("quality", stale_quality, _rebuild_quality),
        Asset("schedules of found", stale_found_schedules, _rebuild_found_schedules),
        Asset("tuned configurations", stale_tuned, _rebuild_tuned),
        *(Asset(f"policy {d}", partial(read_policy, d), partial(_rebuild_policy, d)) for d in DOMAINS),
        Asset("benchmark", partial(stale_benchmark, PROJECT / SUMMARY), _rebuild_benchmark),
        Asset("curve of the page", stale_curve, write_curve),
        Asset("tables", stale_tables, write_tables),
    ]


def read(load: Callable[[], object]) -> None:
    """Read a file that is stale only if it cannot be read."""
    load()


def _rebuild_words() -> None:
    raise UserError("word vectors need a sentence model: python -m tools.words --model FOLDER")


def _rebuild_encoder(data: Path) -> None:
    state = f"{load_words().content_hash[:12]}.safetensors"  # a training continues with the same words only
    options = [f"paths.data={data.absolute()}", f"task.state=${{paths.outputs}}/encoder/{state}"]
    _run("train.py", "experiment=train_encoder", *options)


def read_reference(domain: str, encoder: Encoder | None = None, folder: Path = FOLDER) -> None:
    """Read the statistics of a domain by an encoder, else the shipped one."""
    encoder = encoder or load_encoder(BUILTIN_ENCODER)
    load_reference(domain, encoder, folder)
    load_kernel(domain, encoder, folder)


def _rebuild_reference(domain: str, data: Path) -> None:
    write_reference(domain, load_pictures(data / f"{domain}_32.npz", 32).images, load_encoder(BUILTIN_ENCODER))


def _rebuild_vicreg(data: Path) -> None:
    _run("train.py", "experiment=train_vicreg", f"paths.data={data.absolute()}")


def read_vicreg_reference(domain: str, vicreg: VICRegEncoder | None = None, folder: Path = FOLDER) -> None:
    """The same of the files by an encoder without labels."""
    load_vicreg_reference(domain, vicreg or load_vicreg(BUILTIN_VICREG), folder)


def _rebuild_vicreg_reference(domain: str, data: Path) -> None:
    write_vicreg_reference(domain, load_pictures(data / f"{domain}_32.npz", 32).images, load_vicreg(BUILTIN_VICREG))


def stale_schedules(path: Path = SHIPPED) -> str | None:
    """Why the calibrated schedules do not cover the shipped model and its domains, or None if they do."""
    model, wanted = load_model(BUILTIN_MODEL), set(ScheduleCalibration().steps)
    found, guidance = merged(load_schedules(path)), model.metadata["guidance_scale"]
    known = {s.domain: set(s.steps) for s in found if (s.model, s.guidance_scale) == (model.identity, guidance)}
    missing = [domain for domain in model.domains or () if not wanted <= known.get(domain, set())]
    return f"numbers of steps are missing for {', '.join(missing)}" if missing else None


def _rebuild_schedules() -> None:
    made = SHIPPED.with_name("schedules.new.json")  # a new file: an old one would keep the schedules of other models
    _run("train.py", "experiment=calibrate_builtin", f"output={made}", MLX_ENABLE_TF32="0")
    made.replace(SHIPPED)


def stale_quality() -> str | None:
    """Why the calibration of quality does not fit the shipped model and its schedules, or None."""
    model, found = load_model(BUILTIN_MODEL), load_calibration(QUALITY)
    if found.model != model.identity:
        return "it was measured on another model"
    return None if found.curve == plain_curve(model) else "the schedules were scored anew"


def _rebuild_quality() -> None:
    options = ["--steps", "10", "20", "50", "--images", "64", "--write", str(QUALITY)]
    _run("-m", "benchmarks", "quality", "--domains", *DOMAINS, *options)


def stale_tuned(path: Path = TUNED) -> str | None:
    """Why the tuned configurations do not cover the shipped model and its domains, or None if they do."""
    model, records = load_model(BUILTIN_MODEL), read_records(path)
    guidance = float(model.metadata["guidance_scale"])
    found = {domain: records.find(model.identity, guidance, domain) for domain in model.domains or ()}
    missing = [domain for domain, record in found.items() if record is None or "reason" not in record.provenance]
    return f"nothing is tuned and verified for {', '.join(missing)}" if missing else None


def _rebuild_tuned() -> None:
    made = TUNED.with_name("tuned.new.json")
    _run("-m", "tools.tuned", "--output", str(made))
    made.replace(TUNED)


def stale_found_schedules(path: Path = SHIPPED) -> str | None:
    """Why the schedules do not cover the guidance that was found for the domains, or None if they do."""
    model = load_model(BUILTIN_MODEL).identity
    known = {(s.model, s.domain, s.guidance_scale) for s in load_schedules(path) if set(FEW_STEPS) <= set(s.steps)}
    missing = [domain for domain, found in FOUND.items() if (model, domain, found.guidance) not in known]
    return f"none are for the guidance that was found for {', '.join(missing)}" if missing else None


def _rebuild_found_schedules() -> None:
    for domain, found in FOUND.items():
        ends = f"task.guidance.low={found.guidance_low}", f"task.guidance.high={found.guidance_high}"
        guidance = ("guidance@task.guidance=interval", f"task.guidance_scale={found.guidance_weight}", *ends)
        settings = (f"task.domains=[{domain}]", f"output={SHIPPED}")
        _run("train.py", "experiment=calibrate_tuned", *guidance, *settings, MLX_ENABLE_TF32="0")


def read_policy(domain: str, folder: Path = POLICIES) -> None:
    """Read a domain's policy for the shipped model."""
    model = load_model(BUILTIN_MODEL)
    wanted = Wanted(identity_of(model, float(model.metadata["guidance_scale"])), domain, POLICY_STEPS)
    find_policy(folder / f"{domain}_{POLICY_STEPS}.zip", None, wanted)


def _rebuild_policy(domain: str) -> None:
    options = [f"domain={domain}", f"task.num_steps={POLICY_STEPS}", "task.episodes=100"]
    file = POLICIES / f"{domain}_{POLICY_STEPS}.zip"
    _run("train.py", "task=policy", "agent=ppo", *options, f"output={file}")


def _rebuild_benchmark() -> None:
    try:
        needed = commands(read_summary(PROJECT / SUMMARY))
    except UserError:  # there is none yet
        needed = ["python sample.py -m experiment=benchmark", REPORT.format("")]

    raise UserError(
        "\n".join(["measure the benchmark again, which takes hours and may be stopped at any time:", *needed])
    )


def _run(*command: str, **environment: str) -> None:
    """Run a Python program in the project's folder, on the shipped model."""
    shipped = {k: v for k, v in os.environ.items() if k != MODEL_VARIABLE}
    subprocess.run([sys.executable, *command], cwd=PROJECT, check=True, env={**shipped, **environment})


if __name__ == "__main__":
    run_program(main)

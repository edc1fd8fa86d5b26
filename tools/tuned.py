"""`python -m tools.tuned`: verify the guidance that a grid found for each domain, and record what holds.

Three domains: weights 1.3, 1.5 and 1.8 in an interval of noise levels, 6 to 10 steps, by `fd_encoder` of 264 images.
Abstract images: one or two guided evaluations of 6 to 8, weights 1.3 to 4, by `fd_encoder` of 528 images; of these the
8 steps by both encoders and 2,112 images. What was found (`python -m benchmarks guidance_interval`) is verified as what
an agent finds is: on noises that the grid never saw, against the default, with shipped steps for its guidance, or else
those of constant guidance.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from adaptive_diffusion.leaving import run_program
from adaptive_diffusion.optimization.configuration import DomainConfig
from adaptive_diffusion.optimization.domain_adapter import DomainAdapter
from adaptive_diffusion.optimization.memory import read_records, write_records
from adaptive_diffusion.optimization.pipeline import OptimizationPipeline
from adaptive_diffusion.optimization.records import DomainRecord, DomainRecords
from adaptive_diffusion.rl.reward import HybridReward

SOURCE = "found by a grid of guidance"
MIDDLE = DomainConfig(6, guidance_weight=1.3, guidance_low=-2.0, guidance_high=0.35, source=SOURCE)
FOUND = {
    "portraits": DomainConfig(6, guidance_weight=1.5, guidance_low=-4.0, guidance_high=-1.0, source=SOURCE),
    "landscapes": MIDDLE,
    "abstract": DomainConfig(8, guidance_weight=3.0, guidance_low=-0.5, guidance_high=0.5, source=SOURCE),
    "general": MIDDLE,
}
IMAGES = 66  # of a batch


def main(argv: list[str]) -> None:
    """Verify the configurations of some domains, and write the records."""
    parser = argparse.ArgumentParser(prog="python -m tools.tuned", description=__doc__)
    parser.add_argument("--domains", nargs="+", choices=list(FOUND), default=list(FOUND))
    parser.add_argument("--batches", type=int, default=12, help=f"fresh batches of {IMAGES} images, >= 1")
    parser.add_argument("--output", type=Path, required=True, help="the records, .json; other domains in it stay")
    options = parser.parse_args(argv)

    for domain in options.domains:
        with tempfile.TemporaryDirectory() as folder:  # nothing is recorded before it is verified
            adapter = DomainAdapter(Path(folder) / "candidate.json")
            reason, record = verify(domain, adapter, options.batches)

        records = read_records(options.output) if options.output.exists() else DomainRecords()
        known = [record, *(other for other in records.known if other.domain != domain)]
        records.known = sorted(known, key=lambda found: list(FOUND).index(found.domain))
        write_records(options.output, records)
        print(f"{domain}: {reason}", flush=True)


def verify(domain: str, adapter: DomainAdapter, batches: int) -> tuple[str, DomainRecord]:
    """The verdict on what was found for a domain, and the record of it."""
    adapter.adopt(domain, FOUND[domain], quality=0.0, speed=1.0, quality_error=None, weight=1 / 3, provenance={})
    reward = HybridReward(metric="real", unit="passes")
    pipeline = OptimizationPipeline(
        adapter, use_rl_optimization=False, reward=reward, pictures=IMAGES, verification_batches=batches
    )
    reason = pipeline.optimize(domain)["reason"]

    record = adapter.known(domain)
    assert record is not None
    record.results = [r for r in record.results if r.hyperparameters == record.config and r.error is not None]
    return reason, record


if __name__ == "__main__":
    run_program(main)

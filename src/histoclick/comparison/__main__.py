"""Command line of a comparison; repeated, it goes on where it stopped."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import cv2
import torch

from histoclick.comparison.jobs import Bench, jobs, run
from histoclick.comparison.plan import read_plan
from histoclick.comparison.table import write_tables
from histoclick.train.settings import parse_changes
from histoclick.types import HistoclickError


def main() -> None:
    """Exit code 2 for what the user can mend."""
    parser = argparse.ArgumentParser(prog="python -m histoclick.comparison", description=__doc__)
    parser.add_argument("plan", type=Path, nargs="?", help="TOML file; default: the decoders")
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with the patch sets inside"
    )
    parser.add_argument("--trunk", type=Path, required=True, help="folded weights of MobileNetV2")
    parser.add_argument("--out", type=Path, required=True, help="for pool, models, runs and table")
    parser.add_argument(
        "--set", action="append", default=[], help="another value of the plan, as in steps=2000"
    )
    parser.add_argument("--stage", type=int, help="only the variants of this stage")
    parser.add_argument("--seed", type=int, help="only this seed")
    parser.add_argument("--variant", action="append", help="only this variant, and other such")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="only write the table again")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(1)
    try:
        plan = read_plan(options.plan, parse_changes(options.set))
        bench = Bench(plan, options.data, options.trunk, options.out, _say)
        asked = [
            job
            for job in jobs(plan)
            if options.stage in (None, job.variant.stage)
            and options.seed in (None, job.seed)
            and job.variant.name in (options.variant or [job.variant.name])
        ]
        if not asked:
            known = ", ".join(dict.fromkeys(job.variant.name for job in jobs(plan)))
            raise HistoclickError(
                "nothing in the plan has this --variant, --stage and --seed; it has the variants "
                f"{known} and the seeds {', '.join(map(str, plan.seeds))}"
            )
        for job in [] if options.table else asked:
            run(bench, job)
            write_tables(plan, options.out)
        _say(f"The table: {write_tables(plan, options.out)}")
    except HistoclickError as error:
        sys.stderr.write(f"Error: {error}\n")
        sys.exit(2)


def _say(text: str) -> None:
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()

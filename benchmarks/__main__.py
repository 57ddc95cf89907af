"""Speed of this project, beside a plain loop, a plain Ray Tune script and the machine's limits.

    python -m benchmarks [NAMES ...] [--quick] [--full] [--rounds N]

Prints a Markdown table for each section named, or for all of them.
"""

from __future__ import annotations

import argparse
import importlib
import os
from pathlib import Path

from benchmarks.measuring import BenchmarkOptions

SECTIONS = {  # modules, imported when they run: some need neither Ray nor MLflow
    "steps": "one trial by shape, against the plain loop and the machine's limits",
    "packs": "trials of one shape that train as one",
    "gpu": "a GPU, in five minutes: packs checked and timed, the published sweep, its parts",
    "samples": "the texts of trials that finish together",
    "counting": "the count model against loops over lists and elements",
    "plan": "`sweeps plan` of many trials and of a long text",
    "delivery": "sending runs to MLflow",
    "startup": "what commands take beside a bare Ray start",
    "overhead": "what a trial costs beyond its training",
    "sweep": "the published sweep, from the command to its end",
    "verdicts": "how often the verdicts on synthetic sweeps are wrong",
    "anytime": "the same at any look, one after each seed, and what that costs in seeds",
    "moderated": "claims of every cell, with variances borrowed across cells",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=(__doc__ or "").splitlines()[0],
        epilog="\n".join(f"{name:10}{about}" for name, about in SECTIONS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option = parser.add_argument
    option("names", nargs="*", metavar="NAMES", help="sections, see below; all without names")
    option("--rounds", type=int, help="of each measurement; 3, with --quick 1")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="see that everything runs, no more")
    size.add_argument("--full", action="store_true", help="the largest sizes (many hours)")
    option("--max-steps", type=int, help="of the published sweep's trials; 500, with --full 5000")
    ways = ("loop", "loops", "tune", "tune-reusing")
    option("--ways", nargs="*", choices=ways, default=ways, help="of sweep, overhead; none: ours")
    option("--seeds", type=int, nargs="+", default=[], help="of the published sweep's trials")
    option("--trials", type=int, nargs="+", default=[], help="numbers of trivial trials")
    option("--sweeps", type=int, help="synthetic ones for each rate of verdicts; 1000")
    option("--search", action="store_true", help="trivial trials are suggested by a search")
    corpora = os.environ.get("SWEEPS_CORPORA", "state/corpora")
    option("--corpora", default=corpora, help="the cache of downloaded texts (SWEEPS_CORPORA)")
    given = parser.parse_args()
    if unknown := set(given.names) - SECTIONS.keys():
        parser.error(f"unknown: {', '.join(unknown)}; the sections are {', '.join(SECTIONS)}")
    options = BenchmarkOptions(
        rounds=given.rounds or (1 if given.quick else 3),
        is_quick=given.quick,
        is_full=given.full,
        max_steps=given.max_steps or (5_000 if given.full else 500),
        ways=tuple(given.ways),
        seeds=tuple(given.seeds),
        trials=tuple(given.trials),
        sweeps=given.sweeps,
        is_search=given.search,
        corpora=Path(given.corpora).absolute(),
    )
    os.environ["SWEEPS_CORPORA"] = str(options.corpora)  # for `sweeps run`, with its own state
    for name in given.names or SECTIONS:
        importlib.import_module(f"benchmarks.{name}").run(options)


if __name__ == "__main__":
    main()

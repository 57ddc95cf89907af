"""The plain trials in plain Ray Tune: a function trainable and the stock MLflow callback.

    python -m benchmarks.plain_tune WORK.json FOLDER [--at-once 2] [--reuse-actors]

WORK.json is that of `benchmarks.plain_loop`; MLflow's store and Tune's results go into FOLDER. Each
evaluation is reported. By default Tune starts a new process for each trial.
"""

from __future__ import annotations

import argparse
import os
import secrets
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.plain_loop import PlainConfig, PlainTrial, read_work, summary
from sweeps.cluster.ray_environment import LOOPBACK
from trainables.data.corpus import Corpus


# Any: a trial as `dataclasses.asdict` gives it
def trainable(config: dict[str, dict[str, Any]], corpus: Corpus, device: str) -> None:
    from ray import tune

    for report in PlainTrial(PlainConfig(**config["trial"]), corpus, device).train():
        tune.report(report)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--at-once", type=int, default=2)
    parser.add_argument("--reuse-actors", action="store_true")
    given = parser.parse_args()
    os.environ.update(LOOPBACK, RAY_AUTH_TOKEN=secrets.token_hex(32))  # not open to the network
    import ray
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    corpus, device, trials = read_work(given.work)
    ray.init("local", num_cpus=given.at_once, log_to_driver=False)
    each = {"cpu": 1, "gpu": 1 / given.at_once if device == "cuda" else 0}
    with_text = tune.with_parameters(trainable, corpus=corpus, device=device)
    tuner = tune.Tuner(
        tune.with_resources(with_text, each),
        param_space={"trial": tune.grid_search([asdict(trial) for trial in trials])},
        tune_config=tune.TuneConfig(metric="val_loss", mode="min", reuse_actors=given.reuse_actors),
        run_config=tune.RunConfig(
            name="plain",
            storage_path=str(given.folder.absolute()),
            callbacks=[
                MLflowLoggerCallback(
                    tracking_uri=f"sqlite:///{given.folder.absolute() / 'mlflow.db'}",
                    experiment_name="plain",
                )
            ],
            verbose=0,
        ),
    )
    results = tuner.fit()
    if results.num_errors:
        raise SystemExit(f"{results.num_errors} trials failed: {results.errors[0]}")
    print(f"\n{summary(result.metrics for result in results)}")


if __name__ == "__main__":
    main()

"""Hyperparameter sweeps: from a sweep file to trained trials, MLflow runs and a ranking.

The packages in the order in which a sweep goes through them:

    cli          the `sweeps` command
    spec         the sweep file, as it is written
    planning     the trials that a sweep file describes, and their cost
    resources    how many trials fit on the machines, on a GPU, in a pack
    search       what to train next: the queue, Optuna's studies
    deciding     further seeds for claims that are not decided
    execution    running a sweep with Ray Tune, from its start to its ranking
    records      what is kept on disk: the state directory, events, the outbox
    tracking     sending the records to MLflow
    cluster      Ray clusters, and sweeps as jobs on them
    server       MLflow's server and UI
    process      signals, stopping, and the lines shown meanwhile

`tests/test_architecture.py` has the table of which may import which.
"""

"""A sweep in MLflow.

description    what the runs of a sweep and its trials contain
delivery       the thread that sends the outbox to MLflow
sweep_runs     the experiment of a sweep and its runs
store          reading an MLflow store
views          the saved views of an experiment, and links to them
"""

"""A sweep in MLflow.

description     what the outbox keeps of a sweep and its trials for MLflow
delivery        the thread that sends the outbox to MLflow
sweep_runs      sending records of the outbox to the runs of a sweep
experiment      finding and creating these runs, one for each key
run_contents    a trial as an MLflow run
evidence        the claims that a sweep decides, and the evidence at each look
run_notes       the Markdown on the pages of runs
store           reading an MLflow store
views           the saved views of an experiment, and links to them
"""

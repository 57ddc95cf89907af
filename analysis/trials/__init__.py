"""The trials of a sweep as a table with one row for each, read from MLflow or a file.

loading          the trials of an experiment in MLflow, or of a CSV file
mlflow_store     a client of the MLflow store, and what a sweep keeps there
empty_store      the tables of a new MLflow store in a file
sqlite_store     MLflow stores in a file: paths, URIs, locks
trials_csv       CSV files of trials
table            the table and the meaning of its columns
selection        rows by the values of their settings
looks            the looks that were taken at a sweep's verdicts
decided          sweeps that trained seeds until their claims were decided
search_record    the search of a sweep, as its run records it
confirmed        the trials that are evidence: all planned ones, and confirmed winners
"""

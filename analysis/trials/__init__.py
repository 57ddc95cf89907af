"""The trials of a sweep, from where they are kept to a table with a row for each.

loading          the trials of an experiment in MLflow, or of a CSV file
mlflow_store     a client of the MLflow store, and what a sweep keeps there
sqlite_store     MLflow stores in a file: paths, URIs, who uses them
trials_csv       CSV files of trials
table            the table, and what its columns mean
selection        rows by the values of their settings
search_record    what a sweep searched
confirmed        what may be taken for evidence: all planned trials, and confirmed winners
"""

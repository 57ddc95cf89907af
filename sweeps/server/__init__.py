"""MLflow's server.

mlflow_server    how the server is started
ui               the MLflow UI on this machine
secret_file      secrets that come from files
"""

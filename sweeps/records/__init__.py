"""What is kept on disk.

state     the state directory
lock      one driver at a time for a sweep
events    what happens to trials, as data
outbox    the events of a sweep, until MLflow has them and after
"""

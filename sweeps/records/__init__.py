"""What is kept on disk.

state          the state directory
lock           one driver at a time for a sweep
events         what happens to trials, as data
records        a sweep and its trials as the outbox has them
outbox_file    the sqlite file of an outbox
look_log       the claims that a sweep decides, and the evidence at each look
outbox_reader  what an outbox has
outbox         the events of a sweep, until MLflow has them and after
"""

"""The process that trains trials.

worker       training one trial or a pack
reports      what a worker reports to the driver
session      a trial of a worker, with its files and log
durable      a trial that survives its process
pack         durable trials that train together
ray_trial    the adapter to Ray Tune
trial_log    the log of a trial
usage        CPU and memory that a trial uses
heap         settings of the C heap
"""

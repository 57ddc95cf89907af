"""Ray clusters.

ray_start          starting Ray on this machine, or joining a cluster, on a thread
connection         the connection of a sweep to Ray, from its start to its end
ray_processes      Ray's processes on this machine: watching and ending them
ray_environment    the environment variables that Ray reads
machines           the machines of a cluster: storage checks and reports of GPUs
notices            what Ray says of its machines meanwhile, in a line each
remote_tasks       the tasks that run on these machines besides trials
slots              how many trials of a sweep may run at once
jobs               sweeps as Ray jobs
sweep_job          one submission of a sweep
submission         the folder that a job takes to the cluster
code_package       the code in that folder
"""

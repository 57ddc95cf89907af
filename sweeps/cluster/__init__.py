"""Ray clusters.

connection         joining a cluster, and checking its machines
remote_tasks       the tasks that run on its machines besides trials
ray_environment    the environment variables that Ray reads
jobs               sweeps as Ray jobs
code_package       the code that a job takes to the cluster
"""

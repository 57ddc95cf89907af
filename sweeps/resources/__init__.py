"""How many trials run at once. Knows no Ray.

cpus          the CPUs of this machine
nodes         the machines, and how many trials fit on them
gpu_report    the GPUs of this machine and their free memory
gpus          the share of a GPU that a trial gets
packs         the trials that train together as one
pack_sizes    how many trials of each shape form a pack on GPUs
allocation    all of these for one sweep: what its trials get, and how many run at once
fair_share    how the sweeps of a cluster share it
"""

"""The `sweeps` command.

main       the commands that plan, run and show sweeps on this machine
jobs       the commands for sweeps on a cluster: submit, status, logs, stop, resume
options    options that several commands share
"""

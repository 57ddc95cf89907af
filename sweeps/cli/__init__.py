"""The `sweeps` command.

main           the program: all commands, mistakes and exit codes
presets        list
plan           plan
run            run
decide         decide
outcome        what `sweeps run` shows at its end
verify_pack    verify-pack
jobs           sweeps on a cluster: submit, status, logs, stop, resume
store          what MLflow has: sync, ui, sample
loading        reading a sweep file into a plan
options        options that several commands share
"""

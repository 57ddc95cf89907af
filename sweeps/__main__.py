"""``python -m sweeps`` is the `sweeps` command."""

from sweeps.command import main

main(prog_name="sweeps")

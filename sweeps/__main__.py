"""The `sweeps` command as a process; ``python -m sweeps`` is the same."""

from __future__ import annotations

import os
import re
import sys

from sweeps.process import signals
from sweeps.process.resuming import resume_command

PASSWORD = re.compile(r":[^:/@\s]*@")  # in a URI; it is refused later, and never shown


def main() -> None:
    """Run the command; signals are handled from the first line to the last."""
    is_run = sys.argv[1:2] in (["run"], ["decide"])
    run_again = PASSWORD.sub(":...@", resume_command())
    signals.watch(f"again   {run_again}" if is_run else "")
    try:
        os.getcwd()
    except OSError:  # torch's libraries would end this process in their own words
        sys.stderr.write("sweeps: the working directory does not exist any more; go to another\n")
        signals.exit_now(2)
    from sweeps.cli.main import main as command

    try:
        command(prog_name="sweeps")
    except SystemExit as end:
        signals.exit_now(end.code if isinstance(end.code, int) else bool(end.code))


if __name__ == "__main__":
    main()

"""Reading a sweep file into a plan."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sweeps.process.phases import phase

if TYPE_CHECKING:
    from sweeps.planning.plan import Plan
    from sweeps.spec.sweep_file import SweepFile


def load_plan(
    file: str,
    overrides: Sequence[str],
    state_root: Path,
    is_here: bool = False,
    loaded: tuple[SweepFile, str] | None = None,
) -> Plan:
    """Return the plan of a sweep file.

    Args:
        file: a path or a preset.
        overrides: of its values.
        state_root: the state directory, which keeps corpora.
        is_here: the trials run on this machine.
        loaded: result of `load_sweep` for the file, if it was read already.

    Raises:
        UserError: the file has a mistake; one in its form is reported before torch is loaded.
    """
    from sweeps.spec.sweep_file import load_sweep

    loaded = loaded or load_sweep(file)
    with phase("checking the sweep"):
        from sweeps.planning.planner import make_plan
        from sweeps.records.state import state_at

        return make_plan(file, overrides, state_at(state_root), is_here, loaded)

"""`sweeps list`."""

from __future__ import annotations

import click

from analysis.text.terminal import table, try_to_say


@click.command("list")
def list_presets() -> None:
    """List the presets."""
    from sweeps.spec.sweep_file import load_sweep, preset_files

    presets = ((name, load_sweep(name)[0].description) for name in preset_files())
    try_to_say(table(["preset", "what it does"], presets))

"""The folder that a job takes to the cluster: the code, the sweep file, its text and a script."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sweeps.cluster.code_package import copy_code

if TYPE_CHECKING:
    from sweeps.spec.sweep_file import SweepFile

SCRIPT = "run.sh"
KEPT = "goes on as it was submitted"
NOT_KEPT = "nothing was submitted by this name"


def fill_submission(
    folder: Path,
    sweep: SweepFile,
    file: Path | None,
    name_or_path: str,
    arguments: Sequence[str],
    code_version: str,
) -> None:
    """Write all that a sweep needs on the cluster into a folder.

    Args:
        folder: exists and is empty.
        sweep: as the file and the overrides describe it.
        file: of the sweep; None for a preset, which travels with the code.
        name_or_path: of the sweep, as the user wrote it.
        arguments: of `sweeps run` there, after the file.
        code_version: which its runs will name, as the folder has no history.
    """
    copy_code(folder)
    if file is not None:
        shutil.copyfile(file, folder / file.name)
    _copy_corpus(sweep.corpus.name, folder)
    _copy_claims(sweep, folder, file)
    command = ["python", "-m", "sweeps", "run", file.name if file else name_or_path]
    script = _script(sweep.name, shlex.join([*command, *arguments]), code_version)
    (folder / SCRIPT).write_bytes(os.fsencode(script))


def resubmit_command(sweep: str, arguments: Sequence[str]) -> str:
    """Return the shell command that runs a sweep again as it was last submitted.

    Its output begins with the line `KEPT`; or it ends with the line `NOT_KEPT` and exit code 2 if
    the state directory of the cluster has no submission of that sweep.
    """
    run_again = shlex.join(["exec", "sh", SCRIPT, *arguments])
    change = f'cd "$SWEEPS_STATE/{_kept(sweep)}" 2>/dev/null'
    return f"{change} || {{ echo {NOT_KEPT}; exit 2; }}; echo {KEPT}; {run_again}"


def _kept(sweep: str) -> str:
    """Return where the cluster's state directory keeps the last submission of a sweep."""
    return f"sweeps/{sweep}/submission"


def _script(sweep: str, command: str, code_version: str) -> str:
    return f"""\
# Written by `sweeps submit`: keeps this folder for `sweeps resume`, and runs the sweep.
set -e
kept="${{SWEEPS_STATE:?the cluster has to name its state directory}}/{_kept(sweep)}"
if [ "$PWD" != "$kept" ]; then
    rm -rf "$kept.new"
    mkdir -p "$kept.new"
    cp -R . "$kept.new"
    rm -rf "$kept"
    mv "$kept.new" "$kept"
    cd "$kept"  # Ray may remove its own copy before the sweep has ended
fi
export SWEEPS_CODE_VERSION={shlex.quote(code_version)}
exec {command} "$@"
"""


def _copy_corpus(corpus: str, folder: Path) -> None:
    """Copy a text of the user's own, if it is below the working directory."""
    kind, _, name = corpus.partition(":")
    path = Path(name)
    if kind == "file" and not path.is_absolute() and ".." not in path.parts:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / path)


def _copy_claims(sweep: SweepFile, folder: Path, file: Path | None) -> None:
    """Copy the claims that a sweep decides to where its file, or an override, names them."""
    path = sweep.decide.path if sweep.decide else None
    if path is None:
        return
    places = [path] if file is None else [path, Path(os.path.relpath(path, file.parent))]
    for place in places:
        if not place.is_absolute() and ".." not in place.parts:
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / place)

"""The code that is sent to a cluster: our packages and the user's own modules."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import sysconfig
from pathlib import Path

OURS = ("bigram_models", "trainables", "sweeps", "analysis")


def copy_code(folder: Path) -> None:
    """Copy our packages, and the modules of the user's own models, into a folder.

    A module is the user's own if it is imported and not installed, as the models of a planned sweep
    are.

    Args:
        folder: exists; Python can import from it afterwards.
    """
    for name in OURS:
        spec = importlib.util.find_spec(name)
        assert spec
        assert spec.submodule_search_locations
        (source,) = spec.submodule_search_locations
        hidden = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, folder / name, ignore=hidden, dirs_exist_ok=True)
    for module, source in own_modules().items():
        target = folder.joinpath(*module.split("."))
        is_package = Path(source).name == "__init__.py"
        target = target / "__init__.py" if is_package else target.with_suffix(".py")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def own_modules() -> dict[str, str]:
    """Return the files, by name, of imported modules that are neither ours nor installed."""
    standard = tuple(f"{sysconfig.get_path(name)}/" for name in ("stdlib", "platstdlib"))
    files = {name: getattr(module, "__file__", None) for name, module in list(sys.modules.items())}
    return {
        name: file
        for name, file in sorted(files.items())
        if file
        and file.endswith(".py")
        and os.path.isabs(file)  # torch has modules that claim other files
        and name.partition(".")[0] not in (*OURS, "__main__")
        and not file.startswith(standard)
        and not {"site-packages", "dist-packages"} & set(Path(file).parts)
    }

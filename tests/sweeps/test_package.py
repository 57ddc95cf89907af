"""What travels to a cluster: our code, and a user's own modules, but nothing that is installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import sweeps

OWN = {"alone.py": "import inside.deep\n", "inside/__init__.py": "", "inside/deep.py": "WORD = 7\n"}


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """What a process packs that has imported modules of its own, and numpy."""
    here, folder = tmp_path / "here", tmp_path / "packed"
    for name, text in OWN.items():
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text(text)
    (here / "unused.py").write_text("")
    folder.mkdir()
    code = (
        "import alone, numpy\nfrom pathlib import Path\n"
        "from sweeps.cluster.code_package import copy_code\n"
        f"copy_code(Path({str(folder)!r}))"
    )
    place = {"PYTHONPATH": str(Path(sweeps.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", code], cwd=here, env=place, check=True, timeout=60)
    return folder


def test_what_is_imported_and_not_installed_travels(packed: Path) -> None:
    names = {path.relative_to(packed).as_posix() for path in packed.rglob("*.py")}
    ours = ("bigram_models/", "trainables/", "sweeps/", "analysis/")
    assert {name for name in names if not name.startswith(ours)} == set(OWN)
    assert (packed / "sweeps/presets/quickstart.yaml").exists()
    assert (packed / "analysis/claims.yaml").exists()
    assert not list(packed.rglob("__pycache__"))


def test_it_runs_from_there(packed: Path) -> None:
    code = "import alone, inside.deep, sweeps; print(inside.deep.WORD, sweeps.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=packed, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == ["7", str(packed / "sweeps/__init__.py")]

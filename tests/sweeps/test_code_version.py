"""What a run calls the code that trained it."""

from __future__ import annotations

import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from sweeps.tracking import description
from sweeps.tracking.description import CODE, PACKAGES, code_version


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The code as pip puts it, below a checkout of something else."""
    monkeypatch.delenv("SWEEPS_CODE_VERSION", raising=False)
    folder = tmp_path / "lib" / "site-packages"
    for package in PACKAGES:
        shutil.copytree(CODE / package, folder / package)
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "-m", "of another"], check=True)
    monkeypatch.setattr(description, "CODE", folder)
    return folder


def test_installed_code_is_known_by_its_content(installed: Path) -> None:
    first = code_version()
    assert first.startswith(f"{version('bigram-sweeps')}+code.")
    assert len(first.rpartition(".")[2]) == 12
    shutil.move(installed, installed.with_name("elsewhere"))
    shutil.move(installed.with_name("elsewhere"), installed)
    assert code_version() == first
    with (installed / "sweeps" / "spec.py").open("a") as file:
        file.write("# changed\n")
    assert code_version() != first


def test_a_checkout_is_known_by_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SWEEPS_CODE_VERSION", raising=False)
    described = subprocess.run(
        ["git", "-C", str(CODE), "describe", "--always", "--dirty"], capture_output=True, text=True
    )
    if described.returncode:
        pytest.skip("this is no checkout")
    assert code_version() == f"{version('bigram-sweeps')}+{described.stdout.strip()}"


def test_without_git_the_content_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SWEEPS_CODE_VERSION", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert code_version().startswith(f"{version('bigram-sweeps')}+code.")


def test_who_sends_the_code_says_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEEPS_CODE_VERSION", "0.1.0+abc")
    assert code_version() == "0.1.0+abc"

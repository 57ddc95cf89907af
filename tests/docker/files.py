"""The files of docker/ for the tests, and the compose files as Compose reads them.

Of Compose's rules only those that these files use: `include` adds, `extends` of another file merges
maps and appends lists. The schema in test_files.py is Compose's own.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
COMPOSE = sorted(DOCKER.glob("compose*.yaml"))
KUBERNETES = sorted((DOCKER / "kubernetes").glob("*.yaml"))
STARTED = ("compose.yaml", "compose.head.yaml", "compose.worker.yaml")  # by a user, each by itself
VARIABLE = re.compile(r"\$\$|\$\{(?P<name>\w+)(?:(?P<sign>:?[-?])(?P<rest>[^}]*))?\}")

Settings = Mapping[str, str]


def example() -> dict[str, str]:
    """All settings of .env.example, those in comments as well."""
    text = (DOCKER / ".env.example").read_text(encoding="utf-8")
    return dict(re.findall(r"^#?([A-Z0-9_]+)=(.*)$", text, re.MULTILINE))


def variables(path: Path) -> list[tuple[str, str | None]]:
    """The variables that a file asks for, each with its default, if it has one."""
    found = [m for m in VARIABLE.finditer(path.read_text(encoding="utf-8")) if m["name"]]
    asked = [(m["name"], m["rest"] if "-" in (m["sign"] or "") else None) for m in found]
    services = yaml.safe_load(path.read_text(encoding="utf-8")).get("services", {}).values()
    given = [
        names for each in services
        for names in (each.get("environment", {}), each.get("build", {}).get("args", {}))
    ]  # fmt: skip
    passed = [name for names in given for name, value in names.items() if value is None]
    return asked + [(name, None) for name in passed]


def filled_in(text: str, settings: Settings) -> str:
    """The text with its variables replaced; one that must be set and is not raises KeyError."""

    def value(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        if settings.get(match["name"]):
            return settings[match["name"]]
        if "?" in (match["sign"] or "") or match["sign"] is None:
            raise KeyError(match["name"])
        return match["rest"]

    return VARIABLE.sub(value, text)


def load(name: str, settings: Settings) -> dict[str, Any]:
    """A file with what it includes, and services with what they extend."""
    project = yaml.safe_load(filled_in((DOCKER / name).read_text(encoding="utf-8"), settings))
    for included in project.pop("include", []):
        for section, entries in load(included, settings).items():
            assert not project.setdefault(section, {}).keys() & entries.keys(), (
                "Compose refuses that"
            )
            project[section] |= entries
    for service, own in project.get("services", {}).items():
        if base := own.pop("extends", None):
            inherited = load(base["file"], settings)["services"][base["service"]]
            project["services"][service] = merged(inherited, own)
    return project


def merged(base: Any, own: Any) -> Any:
    if isinstance(base, dict) and isinstance(own, dict):
        return base | {key: merged(base[key], own[key]) if key in base else own[key] for key in own}
    if isinstance(base, list) and isinstance(own, list):
        return base + own
    return own


def run(command: str, *arguments: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """A command of this environment."""
    where = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    found = shutil.which(command, path=where)
    assert found, f"{command} is not installed: make test installs it"
    return subprocess.run([found, *arguments], cwd=cwd, capture_output=True, text=True, timeout=60)

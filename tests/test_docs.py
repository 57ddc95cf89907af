"""Links of the documentation lead somewhere, and its sweep files and claims are valid."""

import re
from pathlib import Path

import pytest

from analysis.claims.claim_file import load_claims
from sweeps.spec.sweep_file import load_sweep

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "docker" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
LINK = re.compile(r"\]\(([^()\s]+)\)")
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)
YAML = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)
README_LINES = 150
SWEEP_LINES = 15


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    titles = [title.lower() for title in HEADING.findall(text)]
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


def broken(page: Path) -> list[str]:
    """The relative links of a page that lead nowhere."""
    links = LINK.findall(CODE.sub("", page.read_text(encoding="utf-8")))
    found = []
    for link in links:
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if "://" in link or link.startswith("mailto:"):
            continue
        if not target.exists() or (anchor and anchor not in anchors(target)):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert broken(page) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# A title, with `code`\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](other.md#a-title-with-code) [b](other.md#nothing) [c](missing.md) `[d](e.md)`\n"
    )
    assert broken(page) == ["other.md#nothing", "missing.md"]


def test_the_readme_links_every_page_and_is_short() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) <= README_LINES
    linked = set(LINK.findall(readme))
    assert {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} <= linked


def files_in(name: str) -> list[str]:
    """The YAML files that a page shows."""
    return YAML.findall((ROOT / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", ["README.md", "docs/running.md", "docs/searching.md"])
def test_sweep_files_are_valid(page: str, tmp_path: Path) -> None:
    (text,) = files_in(page)
    path = tmp_path / "sweep.yaml"
    path.write_text(text, encoding="utf-8")
    sweep, _ = load_sweep(str(path))
    assert sweep.name in ("first-sweep", "my-sweep", "my-search")


def test_the_sweep_of_the_readme_is_short() -> None:
    (text,) = files_in("README.md")
    assert len(text.splitlines()) <= SWEEP_LINES


def test_the_claims_are_valid(tmp_path: Path) -> None:
    (text,) = files_in("docs/conclusions.md")
    path = tmp_path / "claims.yaml"
    path.write_text(text, encoding="utf-8")
    assert len(load_claims(path).claims) == 2

"""Figures of odd data: names are drawn as they are, whatever they hold and the machine sets."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import pytest
from matplotlib.figure import Figure as Canvas

from analysis.figures.report_figures import figures
from analysis.figures.style import as_figure, drawable, fixed_style, legend_below, legible
from analysis.text.document import Figure
from tests.analysis.test_figures import NO_CONTRASTS, contrasts, curves_of, trials

pytestmark = pytest.mark.filterwarnings("error")

ODD = [
    "a$b", "$x$", r"$\frac{1}$", r"\$", "$", "$$", "_hidden", "__", "", "\\", "\u4e2d\u6587",
    "\U0001f600", "\x1b[31m", "\u202eabc", "a\nb", "x" * 300, "<b>&amp;", "--", "%s {x}", "nan",
]  # fmt: skip
NUMBERS = [1e308, -1e308, 1e200, 1e99, math.inf, -math.inf, math.nan, 0.0, -3.5, 1e-320]


def all_figures(
    rows: list[dict[str, Any]], claim: pd.DataFrame = NO_CONTRASTS
) -> dict[str, Figure]:
    some = trials(rows)
    found = figures(some, curves_of(some), claim)
    for figure in found.values():
        ElementTree.fromstring(figure.svg)
        assert figure.png.startswith(b"\x89PNG")
    return found


@pytest.mark.parametrize("name", ["variant", "opt"])
def test_odd_words_are_drawn_wherever_they_stand(name: str) -> None:
    rows = [
        {name: word, "n_embd": width, "seed": 0, "val_loss": 2 + index / 100 + width / 1000,
         "training_seconds": 1.0 + index}
        for index, word in enumerate(ODD)
        for width in (8, 16)
    ]  # fmt: skip
    claim = contrasts(3).assign(
        claim="$x$ _y \u4e2d " * 100, cell=["$a$", "_b", "\U0001f600"], what="$\\frac - _"
    )
    drawn = all_figures(rows, claim)
    assert {"loss_by_n_embd", "differences_1", "curves", "cost"} <= set(drawn)


@pytest.mark.parametrize(("x", "facet"), [("$x$", "_y"), ("\u4e2d", "x" * 400), ("a\nb", "\x1b")])
def test_odd_settings_are_drawn(x: str, facet: str) -> None:
    rows = [
        {x: level, facet: width, "variant": variant, "val_loss": 2.0 + level + width}
        for level, width, variant in itertools.product((1, 2, 3), (8, 16), "ab")
    ]
    assert {"heatmap", "curves"} <= set(all_figures(rows))


def test_the_figures_of_a_search_draw_odd_settings() -> None:
    rows = [
        {"_$x$": ODD[i % 9], "n_embd": 8 * (1 + i % 3), "stage": "search", "val_loss": 2 + i / 7}
        for i in range(44)
    ]
    assert "importance" in all_figures(rows)


@pytest.mark.parametrize("column", ["val_loss", "training_seconds", "n_embd"])
def test_numbers_without_a_place_on_an_axis_are_left_out(column: str) -> None:
    plain = {"training_seconds": 1.0, "n_embd": 8}
    rows = [
        {"opt": opt, **plain, "block_size": size, "val_loss": 2.0 + size, column: number}
        for size, opt, number in itertools.product((8, 16), "ab", [*NUMBERS, 3.0, 4.0])
    ]
    assert "curves" in all_figures([{**row, "seed": seed} for seed, row in enumerate(rows)])


def test_what_looks_like_a_formula_is_none() -> None:
    words = ["$x$", "a$b", r"\$", "_hidden"]
    rows = [{"opt": w, "n_embd": n, "val_loss": 2.0 + n} for w in words for n in (8, 16)]
    drawn = all_figures(rows)["loss_by_n_embd"]
    assert all(f"{word} -->" in drawn.svg.decode() for word in words)


def test_a_text_is_drawn_letter_by_letter_as_far_as_there_is_room() -> None:
    assert drawable("a$b\\$") == r"a\$b\\$"  # the backslash before $ is not drawn
    assert drawable("\u4e2d\x1bx\U0001f9ff\u202e") == r"\u4e2d\x1bx\U0001f9ff\u202e"
    assert drawable("\xe9 \u2212 \u03b1") == "\xe9 \u2212 \u03b1"
    assert drawable("x" * 300, 10) == "xxxxxxxxx\u2026"
    assert drawable("x\n" * 50).count("\n") < 10


def test_a_legend_has_every_name() -> None:
    names = ["_a", "__", "b", "$c$"]
    with fixed_style():
        canvas = Canvas(figsize=(5, 3), layout="constrained")
        axes = canvas.subplots()
        for name in names:
            axes.plot([1, 2], [1, 2], label=legible(name))
        legend_below(canvas, *axes.get_legend_handles_labels())
        as_figure("x", "x", canvas)
    shown = [text.get_text() for text in canvas.legends[0].get_texts()]
    assert shown == [" _a", " __", "b", r"\$c\$"]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "t.csv"
    path.write_text("n_embd,seed,val_loss\n8,1,2.0\n16,1,1.9\n")
    return path


def report(table: Path, folder: Path, **environment: str) -> bytes:
    """The figures that a command draws in a folder, about which it says nothing."""
    done = subprocess.run(
        [sys.executable, "-c", "from analysis.command import main; main()", "report", table],
        cwd=folder,
        env=os.environ | {"SWEEPS_STATE": "state"} | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    said = "state/reports/t/report.html\nstate/reports/t/report.md\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, said, "")
    return (folder / "state/reports/t/report.html").read_bytes()


@pytest.fixture(scope="module")
def expected(table: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return report(table, tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize(
    "environment",
    [
        {"MPLBACKEND": "inline"},
        {"MPLBACKEND": "module://absent.backend_inline", "MPLCONFIGDIR": "/proc/absent"},
        {
            "MPLBACKEND": "TkAgg",
            "HOME": "/proc/absent",
            "XDG_CONFIG_HOME": "",
            "XDG_CACHE_HOME": "",
        },
    ],
)
def test_what_a_notebook_sets_changes_no_figure(
    environment: dict[str, str], table: Path, expected: bytes, tmp_path: Path
) -> None:
    assert report(table, tmp_path, **environment) == expected


@pytest.mark.parametrize(
    "content",
    [
        b"backend: nonsense\nfont.size: x\nno such line\ntext.usetex: True\nsvg.fonttype: none\n",
        b"\xff\xfe\x00",
    ],
)
def test_a_settings_file_in_the_working_directory_changes_no_figure(
    content: bytes, table: Path, expected: bytes, tmp_path: Path
) -> None:
    (tmp_path / "matplotlibrc").write_bytes(content)
    assert report(table, tmp_path) == expected

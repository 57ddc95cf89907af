"""Markdown and pages: what is data is shown as it is, and nothing in it is obeyed."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner
from markdown_it import MarkdownIt

from analysis.command import main
from analysis.text.document import Report, as_code, as_text, code_block, in_short, markdown_table

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "</td></table><h1>x",
    "<!-- ",
    "[x](javascript:alert(1))",
    "[x] (http://evil)",
    "[x][y]",
    "[x]: http://evil",
    "![x](http://evil/y.png)",
    "a|b",
    "`code` ``",
    "**bold** *it* _it_ __b__ ~~s~~",
    "n_embd a_b_",
    "&lt;b&gt; &#60; & &nosuch",
    "\\",
    "a\\|b \\` \\<",
    "# title",
    "> quote",
    "- item",
    "+ item",
    "1. item",
    "12) item",
    "---",
    "===",
    "```",
    "    code",
    "http://evil",
    "<http://evil>",
]


class Shown(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.cells: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.cells:
            self.cells[-1] += data


def shown(text: str) -> Shown:
    """What a reader that obeys HTML makes of Markdown."""
    return Shown(MarkdownIt("commonmark", {"html": True}).enable("table").render(text))


def in_a_line(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("text", HOSTILE)
def test_a_value_is_shown_as_it_is(text: str) -> None:
    page = shown(as_text(text))
    assert (page.elements, page.text) == (["p"], in_a_line(text) + "\n")
    assert "<" not in as_text(text)  # some readers know no backslash before it
    page = shown(f"**{as_text('x' + text + 'x')}** and more")
    assert page.elements == ["p", "strong"]
    assert page.text == f"{in_a_line('x' + text + 'x')} and more\n"


def test_a_table_shows_its_cells_and_names_as_they_are() -> None:
    table = pd.DataFrame(dict.fromkeys(HOSTILE, HOSTILE))
    page = shown(markdown_table(table))
    wanted = [in_a_line(text) for text in HOSTILE]
    assert [cell.strip("\n") for cell in page.cells] == wanted + [c for c in wanted for _ in wanted]
    assert set(page.elements) == {"table", "thead", "tbody", "tr", "th", "td"}


@pytest.mark.parametrize("text", [*HOSTILE, "`", "a`b``c", "``` x"])
def test_code_is_shown_as_it_is(text: str) -> None:
    page = shown(as_code(text))
    assert (page.elements, page.text) == (["p", "code"], in_a_line(text) + "\n")


def test_a_text_does_not_leave_its_block_of_code() -> None:
    text = "a\r<b>x</b>\n\n# t\r\n</code></pre><script>\n\x0b```\n\x85- x\u2028y"
    page = shown(f"Text:\n\n{code_block(text)}")
    assert page.elements == ["p", "pre", "code"]
    assert "<b>x</b>" in page.text


def test_a_word_of_many_does_not_look_like_markup() -> None:
    assert as_text("n_embd=64 [-0.1, +0.2] 2.5e-3 (a) a-b #3 1.5") == (
        "n_embd=64 [-0.1, +0.2] 2.5e-3 (a) a-b #3 1.5"
    )


@pytest.mark.parametrize(
    ("value", "decimals", "expected"),
    [
        (2.5, 5, "2.50000"),
        (1e200, 5, "1e+200"),
        (-1e308, 5, "-1e+308"),
        (123456789.123, 1, "1.23457e+08"),
        (999999.5, 1, "999999.5"),
        (math.inf, 5, "inf"),
        (math.nan, 5, ""),
        (None, None, ""),
        (1e-7 / 3, None, "3.33333e-08"),
        (0.001, None, "0.001"),
        (7, 5, "7.00000"),
        (10**30, None, str(10**30)),
        ("word", 5, "word"),
        ("None", None, "None"),
        ("", None, ""),
    ],
)
def test_a_value_in_short(value: Any, decimals: int | None, expected: str) -> None:
    assert in_short(value, decimals) == expected


def test_a_page_keeps_images_of_others_as_they_are() -> None:
    made = Report("<b>", "![x](figures/absent.svg)\n", {})
    assert 'src="figures/absent.svg"' in made.html
    assert "<title>&lt;b&gt;</title>" in made.html


def test_a_report_obeys_nothing_that_its_table_says(tmp_path: Path) -> None:
    path = tmp_path / "a<b>_c.csv"
    rows = [{"opt": text, "<i>": 1, "corpus": "<u>*x*", "val_loss": 2.0 + i / 100}
            for i, text in enumerate(HOSTILE)]  # fmt: skip
    rows[0] |= {"status": "FAILED", "failure": "died <b>\x1b[2J of ![x](y)"}
    pd.DataFrame(rows).to_csv(path, index=False)
    claims = tmp_path / "claims.yaml"
    claims.write_text(
        "claims: [{claim: '<b>*x* [y](z)', factor: opt, best: '[x][y]', despite: ['<i>']}]", "utf-8"
    )
    done = CliRunner().invoke(
        main, ["report", str(path), "--claims", str(claims), "--out", str(tmp_path)]
    )
    assert done.exit_code == 0, done.output
    text = (tmp_path / "report.md").read_text("utf-8")
    assert "\x1b" not in text
    html = (tmp_path / "report.html").read_text("utf-8")
    (contents,) = re.findall("<nav.*</nav>", html, re.DOTALL)
    assert set(Shown(contents).elements) == {"nav", "a"}
    page, ours = shown(text), Shown(html.replace(contents, ""))
    for found in (page, ours):
        assert not {"script", "b", "i", "u", "a", "del", "pre"} & set(found.elements)
        assert r"died <b>\x1b[2J of ![x](y)" in found.text
        assert "<b>*x* [y](z)" in found.text
        assert "Held fixed: <i>=1, corpus=<u>*x*." in found.text
    assert page.elements.count("img") == len(list((tmp_path / "figures").glob("*.svg")))
    assert ours.text.count("\nSweep a<b>_c\n") == 2  # title and heading
    assert page.text.startswith("Sweep a<b>_c\n")


def test_a_page_has_its_contents_below_the_title_with_a_link_to_each_part() -> None:
    parts = ["# Title\n", "## One\n", "### Part *of* `it`\n", "## One\n", "## <b>&amp;\n"]
    page = Report("Title", "\n".join(parts)).html
    contents = page.partition("<nav")[2].partition("</nav>")[0]
    assert page.index("</h1>") < page.index("<nav") < page.index("<h2")
    links = re.findall(r'<a class="(h\d)" href="#([\w-]+)">(.*)</a>', contents)
    assert [(level, title) for level, _, title in links] == [
        *(("h2", "One"), ("h3", "Part of it"), ("h2", "One"), ("h2", "&lt;b&gt;&amp;")),
    ]
    assert [found[1] for found in links] == re.findall(r'<h[23] id="([\w-]+)">', page)
    assert len({found[1] for found in links}) == 4


def test_a_short_page_needs_no_contents() -> None:
    page = Report("Title", "text\n\n## One\n\n## Two\n").html
    assert "<nav" not in page
    assert "text" in page

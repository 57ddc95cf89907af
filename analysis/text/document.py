"""Reports: Markdown with figures beside it, and the same as one HTML file."""

from __future__ import annotations

import base64
import itertools
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from analysis.text.terminal import visible

FIGURES = "figures"
LONG = 10  # characters of a number
LARGE = 1e6  # a number that has no digits after the point
# What Markdown interprets: not an underscore inside a word, and brackets only if a link target
# follows; and at the start of a line the marks of a heading, a list, a quote or a rule.
MARKUP = re.compile(r"[\\`*~|]|\](?=\s*[(\[:])|(?<![^\W_])_|_(?![^\W_])")
BLOCK = re.compile(r"^(\d*)([#>]|[-+=](?=[-+=\s]|$)|[.)](?=\s|$))")
ENTITY = re.compile(r"&[#\w]")
IMAGE = re.compile(rf'src="{FIGURES}/([\w.-]+)\.svg"')
END_OF_TITLE = "</h1>"
PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 76rem;
       margin: 0 auto; padding: 1rem 1.5rem 4rem; }
h1, h2, h3 { line-height: 1.2; margin: 2rem 0 .7rem; }
h2 { border-bottom: 1px solid #bbb; padding-bottom: .2rem; }
p, li { max-width: 52rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; font-size: .85rem;
        font-variant-numeric: tabular-nums; margin: 1rem 0; }
th, td { padding: .2rem .7rem; border-bottom: 1px solid #ddd; vertical-align: top; }
th { text-align: left; border-bottom: 2px solid #888; }
nav { columns: 22rem; border: 1px solid #ddd; padding: .6rem 1rem; font-size: .9rem; }
nav a { display: block; overflow-wrap: anywhere; break-inside: avoid; }
nav .h3 { padding-left: 1.2rem; }
code { font-size: .9em; overflow-wrap: anywhere; }
pre { background: #f4f4f4; padding: .7rem; overflow-x: auto; white-space: pre-wrap; }
img { max-width: 100%; }
@media print { body { font-size: 10pt; max-width: none; } h2 { break-after: avoid; }
               table, img { break-inside: avoid; } }
</style>
</head>
<body>
{{ head }}
{% if contents|length > 2 %}
<nav aria-label="Contents">
{% for level, id, title in contents %}<a class="{{ level }}" href="#{{ id }}">{{ title }}</a>
{% endfor %}</nav>
{% endif %}
{{ body }}
</body>
</html>
"""


@dataclass(frozen=True)
class Figure:
    """A picture and what it shows; its name is that of its files: letters, digits, _ and -."""

    name: str
    shows: str  # a sentence or two, without a line break
    svg: bytes
    png: bytes

    @property
    def markdown(self) -> str:
        """The picture with its caption, in Markdown."""
        title = self.name.replace("_", " ")
        return f"![{title}]({FIGURES}/{self.name}.svg)\n\n*{as_text(self.shows)}*\n"


@dataclass(frozen=True)
class Report:
    """A text in Markdown that shows figures as `Figure.markdown` does."""

    title: str
    text: str
    figures: Mapping[str, Figure] = field(default_factory=dict)  # by name

    @property
    def html(self) -> str:
        """The whole as one page; HTML in the text is shown as text."""
        from jinja2 import Environment
        from markdown_it import MarkdownIt
        from markupsafe import Markup

        reader = MarkdownIt("commonmark", {"html": False}).enable("table")
        tokens = reader.parse(self.text)
        contents: list[tuple[str, str, str]] = []
        for token, title in itertools.pairwise(tokens):
            if token.type == "heading_open" and token.tag in ("h2", "h3"):
                token.attrSet("id", f"section-{len(contents) + 1}")
                words = "".join(part.content for part in title.children or [])
                contents.append((token.tag, str(token.attrs["id"]), words))
        body = IMAGE.sub(self._inline, reader.renderer.render(tokens, reader.options, {}))
        *head, body = body.split(END_OF_TITLE, 1)
        parts = {"head": Markup("".join(f"{part}{END_OF_TITLE}" for part in head))}
        page = Environment(autoescape=True).from_string(PAGE)
        parts["body"] = Markup(body)
        return page.render(title=self.title, contents=contents, **parts) + "\n"

    def write(self, folder: Path) -> list[Path]:
        """Write ``report.html``, ``report.md`` and ``figures/``: equal reports give equal bytes.

        Returns:
            The page and the text.
        """
        (folder / FIGURES).mkdir(parents=True, exist_ok=True)
        for figure in self.figures.values():
            (folder / FIGURES / f"{figure.name}.svg").write_bytes(figure.svg)
            (folder / FIGURES / f"{figure.name}.png").write_bytes(figure.png)
        page, text = folder / "report.html", folder / "report.md"
        page.write_text(visible(self.html), encoding="utf-8")
        text.write_text(visible(self.text), encoding="utf-8")
        return [page, text]

    def figure_paths(self, folder: Path) -> list[Path]:
        """Return the files of the figures, below the folder that the report was written to."""
        return [
            folder / FIGURES / f"{name}.{kind}" for name in self.figures for kind in ("svg", "png")
        ]

    def _inline(self, found: re.Match[str]) -> str:
        if found[1] not in self.figures:  # the text of somebody else
            return found[0]
        svg = base64.b64encode(self.figures[found[1]].svg).decode()
        return f'src="data:image/svg+xml;base64,{svg}"'


def markdown_table(
    table: pd.DataFrame,
    decimals: Mapping[str, int] | None = None,
    marked_up: Collection[str] = (),
) -> str:
    """Return a table in Markdown: numbers to the right, nothing where a value is missing.

    Args:
        table: the index is not shown.
        decimals: digits after the point, by column; others are shown as they are, but long
            fractions with six digits.
        marked_up: columns whose cells are Markdown; all others are shown as they are.
    """
    decimals, columns = decimals or {}, []
    for name in table:
        texts = [in_short(value, decimals.get(str(name))) for value in table[name]]
        columns.append(texts if name in marked_up else list(map(as_text, texts)))
    names = [as_text(str(name)) for name in table]
    text = pd.DataFrame(list(zip(*columns, strict=True)), columns=names, dtype=object)
    sides = ["right" if pd.api.types.is_numeric_dtype(table[name]) else "left" for name in table]
    return str(text.to_markdown(index=False, disable_numparse=True, colalign=sides)) + "\n"


def in_short(value: object, decimals: int | None = None, sign: str = "") -> str:
    """Return a value for people; an empty text for a missing one.

    Args:
        value: a number or a word.
        decimals: digits after the point of a number. Without, a long fraction has six digits, as
            has a number in the millions.
        sign: "+" shows that of a positive number.
    """
    if is_missing(value):
        return ""
    if isinstance(value, float) and (decimals is None or not abs(value) < LARGE):
        return f"{value:{sign}.6g}" if len(str(value)) > LONG or sign else str(value)
    if decimals is not None and isinstance(value, int | float):
        return f"{value:{sign}.{decimals}f}"
    return str(value)


def is_missing(value: object) -> bool:
    """Return whether a cell of a table has no value: None, NaN or NA."""
    return value is None or value is pd.NA or value != value


def as_text(value: str) -> str:
    """Escape a value, so that Markdown shows it as it is, in a sentence or a table's cell.

    HTML's entities stand for what starts a tag, as some readers know no backslash before it.
    """
    text = MARKUP.sub(r"\\\g<0>", visible(" ".join(value.split())))
    text = text.replace("&", "&amp;") if ENTITY.search(text) else text
    return BLOCK.sub(r"\1\\\2", text).replace("<", "&lt;")


def as_code(value: str) -> str:
    """Return a value as code in a line of Markdown."""
    text = visible(" ".join(value.split()))
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}" if len(fence) > 1 else f"`{text}`"


def code_block(text: str) -> str:
    """Return a text as a block of code in Markdown."""
    return "".join(f"    {line}\n" for line in visible(text).split("\n"))

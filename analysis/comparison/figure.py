"""The figure of the comparison: losses over the width."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import NullLocator

from analysis.comparison.measure import COUNT, TABLE, Comparison
from analysis.figures.style import GREY, as_figure, fixed_style, legend_below, look
from analysis.text.document import Figure

TRAINED = "trained by gradient descent"
BEST = "best found for the width, on the training counts"
CLOSEST = "closest to the count model's predictions"
SVD = "SVD of the count model's logits, rows by frequency"
SVD_ROWS = "SVD of the count model's logits, rows alike"
LEAST_NATS = 1e-5  # the lowest distance from the floor that is drawn
NEAREST_TICKS = 1.3  # ticks of widths that are closer in ratio would overlap


def loss_by_width(found: Comparison) -> Figure:
    """Draw how far from the floor the training loss of each width ends, and its validation loss."""
    with fixed_style():
        canvas = Canvas(figsize=(10, 4.8), layout="constrained")
        left, right = canvas.subplots(1, 2)
        _excess(left, found)
        _validation(right, found)
        for axes in (left, right):
            _widths(axes, found)
        handles = {
            name: handle
            for axes in (left, right)
            for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        legend_below(canvas, list(handles.values()), list(handles))
        shows = (
            f"Losses by n_embd on {found.corpus.name}. Left: the training loss above its floor, the"
            f" conditional entropy of {found.entropy:.4f} nats, on a logarithmic axis, cut at"
            f" {LEAST_NATS:g}. Right: the validation loss; what lies above the axis is cut."
        )
        return as_figure("loss_by_width", shows, canvas)


def _excess(axes: Axes, found: Comparison) -> None:
    _line(axes, found, "train_loss", TRAINED, 0, found.entropy)
    if found.floors_known:
        _line(axes, found, "floor", BEST, 2, found.entropy)
        _line(axes, found, "svd", SVD, 1, found.entropy)
        _line(axes, found, "svd_rows", SVD_ROWS, 5, found.entropy)
    for subject in found.subjects:
        if subject.name == TABLE:
            height = max(float(subject.run["train_loss"]) - found.entropy, LEAST_NATS)
            axes.axhline(height, color=GREY, ls=":", lw=1.2, label="trained V x V table")
    axes.set_yscale("log")
    axes.set_title("training")
    axes.set_ylabel("train_loss - floor (nats per character)")


def _validation(axes: Axes, found: Comparison) -> None:
    _line(axes, found, "val_loss", TRAINED, 0)
    if found.floors_known:
        _line(axes, found, "fit_val", CLOSEST, 3)
        _line(axes, found, "svd_val", SVD, 1)
    level = float(found.subject(COUNT).run["val_loss"])
    axes.axhline(level, color="black", lw=1.2, label=COUNT)
    shown = [*found.widths["val_loss"], level]
    room = max(max(shown) - min(shown), 0.01)
    axes.set_ylim(min(shown) - 0.08 * room, max(shown) + 0.08 * room)
    axes.set_title("validation")
    axes.set_ylabel("val_loss (nats per character)")


def _line(
    axes: Axes, found: Comparison, column: str, label: str, index: int, floor: float | None = None
) -> None:
    values = found.widths[column]
    if floor is not None:
        values = (values - floor).clip(lower=LEAST_NATS)
    style = look(index)
    axes.plot(
        found.widths["n_embd"], values, color=style.color, marker=style.marker, ls=style.line,
        lw=1.5, label=label,
    )  # fmt: skip


def _widths(axes: Axes, found: Comparison) -> None:
    """Draw a tick at each width that has room, and a line at the full rank."""
    axes.set_xscale("log", base=2)
    ticks: list[int] = []
    for width in found.widths["n_embd"]:
        if not ticks or width / ticks[-1] > NEAREST_TICKS:
            ticks.append(int(width))
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    full = found.corpus.vocab_size - 1
    axes.axvline(full, color=GREY, ls="--", lw=1, label=f"full rank, V - 1 = {full}")
    axes.set_xlabel("n_embd (D)")

"""Sentences about a comparison, each computed from its numbers."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.comparison.cost import BATCHES
from analysis.comparison.counting import ELEMENTS, HISTOGRAM, LISTS, Counted
from analysis.comparison.measure import BABY, BABY_WIDTH, COUNT, Comparison, RunRow
from trainables.training.timing import format_seconds

NEAR_NATS = 0.005  # what is called near
SHAPES = [f"{sequences:,} x {length}" for sequences, length in BATCHES]


def conclusions(found: Comparison) -> list[str]:
    """Return the conclusions from the numbers, in Markdown."""
    texts = [_on_loss(found), _on_cost(found), _on_counting(found)]
    has_gpu = any(way.device == "cuda" for way in found.counted)
    texts.append(_on_gpu(found) if has_gpu else _without_gpu(found))
    if found.floors_known:
        texts += [_on_capacity(found), _on_training(found), _on_widths(found)]
    return texts


def _on_loss(found: Comparison) -> str:
    baby = _baby(found)
    count = found.subject(COUNT).run
    difference = float(baby["val_loss"] - count["val_loss"])
    seeds = f" (the mean of {baby['seeds']} seeds)" if baby["seeds"] > 1 else ""
    return (
        f"**Loss.** On validation {BABY} has {baby['val_loss']:.4f}{seeds} and the {COUNT}"
        f" {count['val_loss']:.4f}: {BABY} is {abs(difference):.4f}"
        f" {'worse' if difference > 0 else 'better'}. On the training split they are"
        f" {baby['train_loss'] - found.entropy:.4f} and {count['train_loss'] - found.entropy:.4f}"
        " above the floor."
    )


def _baby(found: Comparison) -> RunRow:
    """Return the row of its width: means over seeds."""
    (row,) = found.widths[found.widths["n_embd"] == BABY_WIDTH].to_dict("records")
    return {str(name): value for name, value in row.items()}


def _on_cost(found: Comparison) -> str:
    baby, count = found.subject(BABY), found.subject(COUNT)
    learning = [float(subject.run["training_seconds"]) for subject in (baby, count)]
    forward = [subject.cost.forward["cpu", BATCHES[0]].median_s for subject in (baby, count)]
    return (
        f"**Cost.** To learn took {BABY} {format_seconds(learning[0])} in its run and the {COUNT}"
        f" {format_seconds(learning[1])}, so {BABY} {times(learning[0], learning[1])} as long. A"
        f" forward pass of {SHAPES[0]} characters takes {BABY} {format_seconds(forward[0])} and the"
        f" {COUNT} {format_seconds(forward[1])}, so {BABY} {times(forward[0], forward[1])} as long."
    )


def _on_counting(found: Comparison) -> str:
    few = min(way.tokens for way in found.counted)
    lists, elements, vectorised = (
        _way(found.counted, way, few).ns_per_token for way in (LISTS, ELEMENTS, HISTOGRAM)
    )
    return (
        f"**Counting.** A character costs {lists:,.0f} ns with Python lists, {elements:,.0f} ns"
        f" with a loop over the elements of a tensor, and {vectorised:,.1f} ns vectorised: the"
        f" lists take {times(lists, vectorised)} as long as the vectorised way, the loop over"
        f" the tensor {times(elements, vectorised)} as long, and {times(elements, lists)}"
        f" as long as the lists (the first {few:,} characters, on the CPU)."
    )


def _without_gpu(found: Comparison) -> str:
    small, large = (sequences * length for sequences, length in BATCHES)
    gains = {
        name: cost.forward["cpu", BATCHES[0]].median_s * large
        / (cost.forward["cpu", BATCHES[1]].median_s * small)
        for name, cost in ((name, found.subject(name).cost) for name in (BABY, COUNT))
    }  # fmt: skip
    return (
        "**GPU.** There was none, so how well either fits one is not measured. On the CPU a forward"
        f" pass of {SHAPES[1]} characters gets through one {gains[BABY]:.2g} times as fast as a"
        f" pass of {SHAPES[0]} with {BABY}, and {gains[COUNT]:.2g} times as fast with the {COUNT}."
    )


def _on_gpu(found: Comparison) -> str:
    sentences = []
    for name in (BABY, COUNT):
        cost = found.subject(name).cost
        gains = {
            f"a forward pass of {shape}": cost.forward["cpu", batch].median_s
            / cost.forward["cuda", batch].median_s
            for shape, batch in zip(SHAPES, BATCHES, strict=True)
        }
        gains["learning"] = cost.learning["cpu"].median_s / cost.learning["cuda"].median_s
        speeds = ", ".join(f"{gain:.2g} in {what}" for what, gain in gains.items())
        pays = [what for what, gain in gains.items() if gain > 1]
        sentences.append(f"{name}: {speeds}; so it gains in {', '.join(pays) or 'none of them'}")
    return (
        "**GPU.** How many times as fast as one thread of the CPU the GPU is: "
        + ". ".join(sentences)
        + "."
    )


def _on_capacity(found: Comparison) -> str:
    widths, full = found.widths, found.corpus.vocab_size - 1
    enough = widths[widths["floor"] - found.entropy <= NEAR_NATS]
    svd = widths[widths["svd"] - found.entropy <= NEAR_NATS]
    text = (
        f"**Equivalence.** From D = V - 1 = {full} on, a factorisation can be any table of logits,"
        " so what the two can express is the same."
    )
    if len(enough):
        first = enough.iloc[0]
        text += (
            f" Of the widths tried D = {first['n_embd']:.0f} is the smallest that comes within"
            f" {NEAR_NATS} of the floor: the best that was found for it is"
            f" {first['floor'] - found.entropy:.4f} above."
        )
    else:
        text += f" None of the widths tried was found to come within {NEAR_NATS} of the floor."
    return text + (
        f" The SVD of the {COUNT}'s logits needs D = {svd.iloc[0]['n_embd']:.0f} for that."
        if len(svd)
        else f" The SVD of the {COUNT}'s logits does not come so near at any of them."
    )


def _on_training(found: Comparison) -> str:
    baby = _baby(found)
    lack, rest = baby["floor"] - found.entropy, baby["train_loss"] - baby["floor"]
    text = f"**What training leaves.** {BABY} ends {lack + rest:.5f} above the floor"
    if baby["seeds"] > 1:
        text += f" (mean of {baby['seeds']} seeds)"
    if rest > 0:
        text += (
            f". For {lack:.5f} of it its width may be to blame; {rest:.5f}, or"
            f" {rest / (lack + rest):.1%}, is optimisation and not capacity, for weights of that"
            " width were found that do without"
        )
    assert found.polished is not None
    return (
        f"{text}. L-BFGS on all pairs, started from {BABY}'s own trained weights, goes down to"
        f" {found.polished - found.entropy:.5f} above the floor."
    )


def _on_widths(found: Comparison) -> str:
    first, last = found.widths.iloc[0], found.widths.iloc[-1]
    best = found.widths.sort_values("val_loss").iloc[0]
    difference = best["val_loss"] - float(found.subject(COUNT).run["val_loss"])
    return (
        f"**Over the widths,** from D = {first['n_embd']:.0f} to {last['n_embd']:.0f}, what the"
        f" width leaves goes from {first['floor'] - found.entropy:.4f} to"
        f" {last['floor'] - found.entropy:.4f}, and what optimisation leaves from"
        f" {first['train_loss'] - first['floor']:.4f} to {last['train_loss'] - last['floor']:.4f}."
        f" On validation the best trained width is D = {best['n_embd']:.0f} with"
        f" {best['val_loss']:.4f}, {abs(difference):.4f}"
        f" {'above' if difference > 0 else 'below'} the {COUNT}."
    )


def times(cost: float, other: float) -> str:
    """Return how many times as large as the other a cost is, such as "12 times"."""
    ratio = cost / other
    return f"{ratio:,.0f} times" if ratio >= 10 else f"{ratio:.2g} times"


def _way(counted: Sequence[Counted], way: str, tokens: int) -> Counted:
    wanted = (way, "cpu", tokens)
    return next(c for c in counted if (c.way, c.device, c.tokens) == wanted)

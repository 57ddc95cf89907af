"""Pareto fronts that know the noise of times and losses, and ticks and names in figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure as Canvas

from analysis import Trials
from analysis.figures import search as search_figures
from analysis.figures.data import configurations_to_draw
from analysis.figures.fronts import cost_front
from analysis.figures.report_figures import figures_of_search
from analysis.text.document import Figure
from tests.analysis.test_figures import trials
from tests.analysis.tuned import suggested, sweep

Points = Mapping[str, tuple[float, float]]


def front_of(points: Points, seeds: int = 1, spread: tuple[float, float] = (0, 0)) -> list[str]:
    """The names on the front; the trials of each scatter around its time and loss."""
    places = np.linspace(-1, 1, seeds) if seeds > 1 else np.zeros(1)
    rows = [
        {
            "model": name,
            "seed": seed,
            "training_seconds": time + spread[0] * place,
            "val_loss": loss + spread[1] * place,
        }
        for name, (time, loss) in points.items()
        for seed, place in enumerate(places)
    ]
    shown = configurations_to_draw(trials(rows))
    assert shown is not None
    return [label.removeprefix("model=") for label in cost_front(shown, shown.table)["label"]]


def test_a_step_is_cheaper_or_better_than_all_others() -> None:
    points = {"a": (1, 3.0), "b": (2, 2.0), "c": (3, 2.5), "d": (4, 1.0), "e": (2, 2.2)}
    assert front_of(points) == ["a", "b", "d"]


def test_times_that_a_machine_would_not_repeat_make_no_step() -> None:
    assert front_of({"a": (10.00, 2.5), "b": (10.04, 2.4), "c": (10.07, 2.3)}) == ["c"]
    assert front_of({"a": (10.0, 2.5), "b": (11.5, 2.4)}) == ["a", "b"]


def test_times_within_their_interval_over_seeds_make_no_step() -> None:
    points = {"a": (10.0, 2.5), "b": (11.5, 2.4)}
    assert front_of(points, seeds=3, spread=(0.1, 0.001)) == ["a", "b"]
    assert front_of(points, seeds=3, spread=(2.0, 0.001)) == ["b"]


def test_losses_within_their_interval_over_seeds_make_no_step() -> None:
    points = {"a": (1, 2.500), "b": (2, 2.499), "c": (4, 2.3)}
    assert front_of(points, seeds=3, spread=(0, 0.01)) == ["a", "c"]
    assert front_of(points, seeds=3, spread=(0, 1e-5)) == ["a", "b", "c"]
    assert front_of(points) == ["a", "b", "c"]  # of one seed no noise is known


def test_many_small_improvements_are_one_step_once_they_are_more_than_noise() -> None:
    points = {f"{i:02}": (2.0**i, 2.5 - 0.004 * i) for i in range(12)}
    found = front_of(points, seeds=3, spread=(0, 0.004))
    assert found[0] == "00"
    assert 1 < len(found) < 6


def test_words_that_say_nothing_alone_are_named_by_their_setting() -> None:
    rows = [
        {"gate": gate, "n_embd": width, "val_loss": 2.0 + width, "training_seconds": width}
        for gate in ("True", "False")
        for width in (16, 32)
    ]
    shown = configurations_to_draw(trials(rows))
    assert shown is not None
    assert shown.labels == ["gate=False", "gate=True"]
    assert "gate=True n_embd=16" in set(shown.table["name"])
    kinds = configurations_to_draw(
        trials([{"pe_type": pe, "val_loss": 2.0} for pe in ("rope", "sinpe")])
    )
    assert kinds is not None
    assert kinds.labels == ["rope", "sinpe"]


def tried() -> Trials:
    """48 suggestions: choices, whole numbers and fractions of a range."""
    chance = np.random.default_rng(0)
    space = {
        "n_embd": {"choices": [16, 32]},
        "dropout": {"choices": [0.1, 0.25, 0.3]},
        "layers": {"low": 2, "high": 10, "log": False, "step": 1},
        "depth": {"low": 4, "high": 5, "log": False, "step": 1},
        "scale": {"low": 0.0, "high": 2.0, "log": False, "step": None},
    }
    runs = []
    for number in range(48):
        params = {
            "n_embd": int(chance.choice([16, 32])),
            "dropout": float(chance.choice([0.1, 0.25, 0.3])),
            "layers": 2 + number % 9,
            "depth": int(chance.integers(4, 6)),
            "scale": float(chance.uniform(0, 2)),
        }
        runs.append(suggested("study", number, params, 2 + float(chance.uniform())))
    return sweep(runs, spaces=[space])


def test_ticks_are_at_the_values_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, Canvas] = {}
    as_figure = search_figures.as_figure

    def kept(name: str, shows: str, canvas: Canvas) -> Figure:
        drawn[name] = canvas
        return as_figure(name, shows, canvas)

    monkeypatch.setattr(search_figures, "as_figure", kept)
    figures_of_search(tried())
    panels: dict[str, Any] = {axes.get_xlabel(): axes for axes in drawn["slices"].axes}
    ticks = {name: axes.get_xticks().tolist() for name, axes in panels.items() if name}
    assert (ticks["n_embd"], ticks["dropout"], ticks["depth"]) == (
        *([16, 32], [0.1, 0.25, 0.3], [4, 5]),
    )
    assert [label.get_text() for label in panels["n_embd"].get_xticklabels()] == ["16", "32"]
    assert all(float(tick).is_integer() for tick in ticks["layers"])
    assert not all(float(tick).is_integer() for tick in ticks["scale"])
    words = {text.get_text() for text in drawn["parallel"].axes[0].texts}
    assert {"16", "32", "0.1", "0.25", "0.3", "2", "4", "5"} <= words

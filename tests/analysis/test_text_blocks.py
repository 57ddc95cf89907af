"""Intervals over texts against numbers by hand, and against correlated texts of a known mean."""

from __future__ import annotations

import itertools
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.errors import AnalysisError
from analysis.results.text_blocks import (
    BLOCKS,
    TextBlocks,
    TextInterval,
    read_blocks,
    text_difference,
    text_interval,
    text_interval_in_words,
)
from analysis.statistics import Interval, t_interval
from analysis.trials.mlflow_store import open_store
from analysis.trials.sqlite_store import store_uri
from analysis.trials.table import Trials
from trainables.persistence import artifacts


def blocks(losses: np.ndarray | list[float], predictions: int | list[int] = 256) -> TextBlocks:
    counts = np.broadcast_to(np.array(predictions), len(losses))
    return TextBlocks(counts, np.asarray(losses, dtype=float))


def found(*trials: list[TextBlocks], **more: object) -> TextInterval:
    interval = text_interval(trials, **more)  # type: ignore[arg-type]
    assert interval is not None
    return interval


def alternating(values: np.ndarray) -> np.ndarray:
    """The values in an order in which neighbours do not correlate above zero."""
    low, high = np.array_split(np.sort(values), 2)
    return np.array(list(itertools.chain(*zip(low, high, strict=True))))


def test_the_interval_is_that_of_the_paired_t_test_over_blocks() -> None:
    chance = np.random.default_rng(1)
    text = chance.normal(2.4, 0.2, 40)  # how hard a block is, for all models
    first, second = text + alternating(chance.normal(-0.02, 0.01, 40)), text
    interval = found([blocks(first), blocks(second)])
    expected = t_interval(first - second, 0.9)
    assert interval.interval.mean == pytest.approx(expected.mean)
    assert interval.interval.low == pytest.approx(expected.low)
    assert interval.interval.high == pytest.approx(expected.high)
    assert interval.error == pytest.approx((first - second).std(ddof=1) / math.sqrt(40))
    assert (interval.interval.n, interval.characters) == (40, 256)


def test_seeds_are_averaged_before_the_blocks_are_compared() -> None:
    chance = np.random.default_rng(2)
    losses = chance.normal(2.4, 0.1, (3, 2, 20))  # seeds, sides, blocks
    losses[:, 0] += alternating(chance.normal(0, 1, 20))
    expected = t_interval((losses[:, 0] - losses[:, 1]).mean(axis=0), 0.9)
    interval = found(*([blocks(side) for side in seed] for seed in losses))
    assert interval.interval.low == pytest.approx(expected.low)
    flipped = found(*([blocks(side) for side in seed] for seed in losses), weights=(-1, 1))
    assert flipped.interval.high == pytest.approx(-expected.low)


def test_blocks_count_by_their_predictions_by_hand() -> None:
    # Ten blocks with difference 1 and one of twice the length with 4: the mean is 18 / 12 = 1.5.
    # The error: 11 / 10 * (10 * (0.5 / 12)^2 + (2 * 2.5 / 12)^2) under the root.
    difference, sizes = [1.0] * 10 + [4.0], [100] * 10 + [200]
    interval = found([blocks(difference, sizes), blocks([0.0] * 11, sizes)])
    error = math.sqrt(1.1 * (10 * (0.5 / 12) ** 2 + (5 / 12) ** 2))
    assert interval.interval.mean == pytest.approx(1.5)
    assert interval.error == pytest.approx(error)
    assert interval.interval.high == pytest.approx(1.5 + stats.t.ppf(0.95, 10) * error)


def test_many_blocks_are_merged_into_long_clusters() -> None:
    chance = np.random.default_rng(3)
    difference = chance.normal(0, 1, 400) + np.repeat(alternating(np.arange(50.0)), 8)
    interval = found([blocks(difference), blocks(np.zeros(400))])
    merged = difference.reshape(50, 8).mean(axis=1)
    assert (interval.interval.n, interval.characters) == (50, 8 * 256)
    assert interval.error == pytest.approx(merged.std(ddof=1) / math.sqrt(50))
    uneven = found([blocks(difference[:101]), blocks(np.zeros(101))])  # 33 of three, one of two
    assert uneven.interval.n == 34
    assert uneven.interval.mean == pytest.approx(difference[:101].mean())


def test_correlated_neighbours_count_as_fewer_by_hand() -> None:
    # +1 five times, -1 five times, and so on: of 19 products of neighbours 16 are +1 and 3 are -1,
    # of 20 squares: r = 13 / 20, so 20 clusters count as 20 * 7 / 33.
    interval = found([blocks(([1.0] * 5 + [-1.0] * 5) * 2), blocks([0.0] * 20)])
    independent = 20 * 7 / 33
    error = math.sqrt(20 / 19 / independent)
    assert interval.correlation == pytest.approx(13 / 20)
    assert interval.error == pytest.approx(error)
    assert interval.interval.high == pytest.approx(stats.t.ppf(0.95, independent - 1) * error)


@pytest.mark.parametrize("correlation", [0.0, 0.6, 0.95])
def test_intervals_cover_though_neighbouring_blocks_are_alike(correlation: float) -> None:
    chance, sweeps = np.random.default_rng(4), 400
    noise = chance.normal(0, 1, (sweeps, 400))
    for step in range(1, 400):
        noise[:, step] *= math.sqrt(1 - correlation**2)
        noise[:, step] += correlation * noise[:, step - 1]
    ours = [found([blocks(row), blocks(np.zeros(400))]).interval for row in noise]
    alone = [t_interval(row, 0.9) for row in noise]
    inside, plain = (np.mean([i.low <= 0 <= i.high for i in each]) for each in (ours, alone))
    assert inside == pytest.approx(0.9, abs=0.05)
    assert correlation == 0 or plain < 0.7  # blocks as clusters would be too short


def test_where_there_is_nothing_to_compare_there_is_no_interval() -> None:
    whole = blocks([2.0] * 20)
    assert text_interval([]) is None
    assert text_interval([[whole, blocks([2.0] * 21)]]) is None
    assert text_interval([[whole, blocks([2.0] * 20, 255)]]) is None
    assert text_interval([[whole, blocks([math.inf] * 20)]]) is None
    assert text_interval([[blocks([2.0] * 9), blocks([2.1] * 9)]]) is None
    same = found([whole, whole])
    assert same.interval == Interval(0.0, 0.0, 0.0, 20)


def test_the_interval_in_words() -> None:
    interval = Interval(-0.0182, -0.0241, -0.0123, 50)
    clear = TextInterval(interval, 0.0035, 2231, 0.1)
    assert text_interval_in_words(clear) == (
        "Over other text of this kind the same models differ by -0.0182 [-0.0241, -0.0123] nats"
        " (90 %, 50 stretches of 2,231 characters, the correlation of neighbours 0.10)."
    )
    unclear = TextInterval(Interval(-0.001, -0.004, 0.002, 50), 0.0018, 2231, 0.4)
    assert text_interval_in_words(unclear).endswith("0.40), so the sign may be another.")
    assert text_interval_in_words(None) == ""


def test_both_sides_know_the_artifact_by_one_name() -> None:
    assert artifacts.BLOCKS == BLOCKS


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a,b\n1,2\n",
        "predictions,val_loss\n1\n",
        "predictions,val_loss\n1.5,2\n",
        "predictions,val_loss\n0,2\n",
        "predictions,val_loss\n1,x\n",
    ],
)
def test_a_damaged_file_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / BLOCKS
    path.write_text(text)
    with pytest.raises(AnalysisError, match=r"blocks.csv of run 7 is damaged"):
        read_blocks(path, "blocks.csv of run 7")


def test_blocks_are_read_from_the_runs_of_a_sweep(empty_store: Path, tmp_path: Path) -> None:
    uri = store_uri(Path(shutil.copy(empty_store, tmp_path / "mlflow.db")))
    client = open_store(uri)
    experiment = client.create_experiment("study", (tmp_path / "artifacts").as_uri())
    path, run_ids = tmp_path / BLOCKS, []
    losses = np.random.default_rng(5).normal(2.4, 0.1, (2, 2, 12))  # seeds, sides, blocks
    losses[:, 0] += alternating(np.arange(12.0))
    for side in losses.reshape(4, 12):
        run_ids.append(client.create_run(experiment).info.run_id)
        rows = "".join(f"256,{loss:.9g}\n" for loss in side)
        path.write_text(f"predictions,val_loss\n{rows}")
        client.log_artifact(run_ids[-1], str(path))
    trials = Trials("study", pd.DataFrame(), (), {"run_id": "the sweep's"})
    interval = text_difference(trials, run_ids, tracking_uri=uri)
    assert interval is not None
    expected = t_interval((losses[:, 0] - losses[:, 1]).mean(axis=0), 0.9)
    assert interval.interval.low == pytest.approx(expected.low)
    without = client.create_run(experiment).info.run_id
    assert text_difference(trials, [run_ids[0], without], tracking_uri=uri) is None
    of_a_file = Trials("study.csv", pd.DataFrame(), ())
    assert text_difference(of_a_file, run_ids, tracking_uri=uri) is None

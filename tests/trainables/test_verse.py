import hashlib
import math
import os
import re
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from trainables.data.verse import write_play

ROOT = Path(__file__).parents[2]
SHA256 = "8cac9daf47fc2d096afb5ee1a91053a83c16a3208bf3bdb2946b776e77a8e237"


@pytest.fixture(scope="module")
def play() -> str:
    return write_play()


def split(text: str) -> tuple[str, str]:
    cut = int(0.9 * len(text))
    return text[:cut], text[cut:]


def complete_scenes(text: str) -> list[list[str]]:
    scenes = text.split("Exeunt.\n\n")[:-1]
    return [scene.removesuffix("\n\n").split("\n\n") for scene in scenes]


def grams(text: str, length: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(text[start:] for start in range(length)), strict=False))


def contexts(counts: Counter[tuple[str, ...]]) -> Counter[tuple[str, ...]]:
    totals: Counter[tuple[str, ...]] = Counter()
    for gram, n in counts.items():
        totals[gram[:-1]] += n
    return totals


def held_out_nats(train: str, asked: str, length: int, smoothing: float = 0.1) -> float:
    """Loss per character of `asked` under smoothed counts of grams in `train`."""
    counts = grams(train, length)
    totals = contexts(counts)
    mass = smoothing * len(set(train))
    loss = 0.0
    for gram, n in grams(asked, length).items():
        loss -= n * math.log((counts[gram] + smoothing) / (totals[gram[:-1]] + mass))
    return loss / (len(asked) - length + 1)


def test_default_play_is_pinned_to_the_byte(play: str) -> None:
    assert hashlib.sha256(play.encode("ascii")).hexdigest() == SHA256


@pytest.mark.parametrize("hash_seed", ["1", "4242"])
def test_a_fresh_process_writes_the_same_bytes(hash_seed: str) -> None:
    program = """
import hashlib, random
random.seed(7)
from trainables.data.verse import write_play
print(hashlib.sha256(write_play().encode()).hexdigest())
"""
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "LC_ALL": "C", "TZ": "Asia/Tokyo"}
    output = subprocess.check_output(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, text=True
    )
    assert output.strip() == SHA256


def test_length_is_exact(play: str) -> None:
    assert len(play) == len(play.encode()) == 1_115_000
    assert play.endswith("\n")
    assert [len(write_play(characters=n)) for n in (1, 2, 999, 20_000)] == [1, 2, 999, 20_000]


def test_shorter_play_begins_the_longer_one(play: str) -> None:
    assert write_play(characters=30_000) == play[:29_999] + "\n"


@pytest.mark.parametrize("characters", [0, -5])
def test_play_without_room_is_refused(characters: int) -> None:
    with pytest.raises(ValueError, match=f"not {characters}"):
        write_play(characters=characters)


def test_seed_decides_the_play(play: str) -> None:
    plays = {write_play(seed, 50_000) for seed in range(5)} | {play[:49_999] + "\n"}
    assert len(plays) == 6


@pytest.mark.parametrize("seed", [1337, 42])
def test_alphabet_is_known_to_training(seed: int) -> None:
    train, validation = split(write_play(seed))
    assert set(train) == set(train + validation)
    assert 55 <= len(set(train)) <= 66
    assert min(Counter(train).values()) >= 300


def test_scenes_are_of_speeches_by_their_cast_in_turns(play: str) -> None:
    scenes = complete_scenes(play)
    assert len(scenes) > 300
    for heading, *paragraphs in scenes:
        matched = re.fullmatch(r"Scene\. .+\.\nEnter (.+)\.", heading)
        assert matched, heading
        cast = [name.upper() for name in re.split(", | and ", matched[1])]
        speeches = [paragraph for paragraph in paragraphs if "\n" in paragraph]
        speakers = [speech.split(":\n")[0] for speech in speeches]
        assert 2 <= len(cast) == len(set(cast)) <= 4
        assert set(speakers) <= set(cast)
        assert all(one != other for one, other in pairwise(speakers))
        assert len(speeches) >= 8
        assert len(paragraphs) - len(speeches) <= len(speeches) / 2


def test_speeches_are_lines_of_verse(play: str) -> None:
    for scene in complete_scenes(play):
        for paragraph in scene[1:]:
            lines = re.sub(r"\A[A-Z]+:\n", "", paragraph).split("\n")
            assert all(re.match("'?[A-Z]", line) and 5 <= len(line) <= 90 for line in lines)
            assert 1 <= len(lines) <= 15
            assert lines[-1][-1] in ".?!", paragraph


@pytest.mark.parametrize(
    "slip",
    [
        r"[.,;:!?]{2}",  # two marks
        r"\s[.,;:!?]",  # a mark on its own
        r" {2}| \n|\n\n\n",  # loose space
        r"\b[Aa] [aeiou]|\b[Aa]n [^aeiou]",  # a or an
        r"\w*(?:[^aeiou]y|[xz]|ch|sh)s\b",  # gallerys
        r"[A-Z]{2,}(?!:\n|[A-Z])",  # a symbol left in
        r"[.?!] [a-z]",  # a sentence without its capital
    ],
)
def test_no_slip_of_the_pen(play: str, slip: str) -> None:
    assert re.findall(slip, play[: play.rindex("Exeunt.")]) == []  # the end is cut anywhere


def test_scene_keeps_to_its_topic(play: str) -> None:
    halves = []
    for scene in complete_scenes(play):
        middle = len(scene) // 2
        halves.append(
            [set(re.findall("[a-z]{4,}", " ".join(s))) for s in (scene[:middle], scene[middle:])]
        )
    own = sum(len(first & second) for first, second in halves)
    next_one = sum(len(first & second) for (first, _), (_, second) in pairwise(halves))
    assert own > 1.2 * next_one


def test_context_helps(play: str) -> None:
    train, validation = split(play)
    bigram, trigram, fourgram = (held_out_nats(train, validation, n) for n in (2, 3, 4))
    assert trigram < bigram - 0.6
    assert fourgram < trigram - 0.3


def test_bigrams_are_as_hard_as_in_natural_text_and_alike_in_both_splits(play: str) -> None:
    train, validation = split(play)
    entropy = held_out_nats(train, train, 2, smoothing=0.0)
    assert 2.2 < entropy < 2.5  # tinyshakespeare has 2.4519
    assert held_out_nats(train, validation, 2) == pytest.approx(entropy, abs=0.03)


def test_loss_counted_by_hand() -> None:
    assert held_out_nats("aaba", "aaba", 2, smoothing=0.0) == pytest.approx(2 / 3 * math.log(2))
    assert held_out_nats("aab", "aba", 2, smoothing=1.0) == pytest.approx(math.log(4) / 2)

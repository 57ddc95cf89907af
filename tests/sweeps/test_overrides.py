"""Changes of a sweep on the command line."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sweeps.planning.overriding import override
from sweeps.planning.planner import make_plan
from sweeps.records.state import State
from sweeps.spec.sweep_file import CorpusSpec, SweepFile, load_sweep
from trainables.errors import UserError, validate


@pytest.fixture(scope="module")
def sweep() -> SweepFile:
    return load_sweep("search")[0]


def at(sweep: SweepFile, path: str) -> Any:
    found: Any = sweep
    for name in path.split("."):
        found = getattr(found, name)
    return found


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("description=run #3", "run #3"),
        ("description=[wip] x", "[wip] x"),
        ("description={x}: 'y' \"z\", &a *b", "{x}: 'y' \"z\", &a *b"),
        ("description=null", "null"),
        ("description=", ""),
        ("description=a=b", "a=b"),
        ("corpus.name=file:a #b.txt", "file:a #b.txt"),
        ("corpus.name=0042", "0042"),
        ("name=2024-01-01", "2024-01-01"),
        ("name=1e3", "1e3"),
        ("tracking.uri=sqlite:///a #b.db", "sqlite:///a #b.db"),
        ("tracking.uri=", None),
        ("tracking.uri=null", None),
        ("storage.uri=/a [b]/c", "/a [b]/c"),
        ("search.storage=sqlite:///a: b.db", "sqlite:///a: b.db"),
        ("search.sampler=qmc", "qmc"),
    ],
)
def test_text_is_taken_as_it_is(sweep: SweepFile, assignment: str, value: str | None) -> None:
    path = assignment.partition("=")[0]
    assert at(override(sweep, [assignment]), path) == value


@pytest.mark.parametrize(
    ("assignment", "values"),
    [
        ("model.pe_type=randn,sinpe", ["randn", "sinpe"]),
        ("model.pe_type= randn , sinpe", ["randn", "sinpe"]),
        ("model.pe_type=[randn, sinpe]", ["randn", "sinpe"]),
        ("model.pe_type=a #b", ["a #b"]),
        ("model.pe_type=[a] b", ["[a] b"]),
        ("model.pe_type=0042", ["0042"]),
        ('model.pe_type=["a, b", c]', ["a, b", "c"]),
        ("training.schedule=off", ["off"]),
        ("model.n_embd=8", [8]),
        ("model.n_embd=8,16", [8, 16]),
        ("model.n_embd=[8,16]", [8, 16]),
        ("model.n_embd=[[8],[16]]", [[8], [16]]),
        ("model.n_embd=", []),
        ("model.pe_type=", []),
        ("training.learning_rate=1e-3,2e-3", [1e-3, 2e-3]),
    ],
)
def test_values_between_commas_are_all_tried(
    sweep: SweepFile, assignment: str, values: list[Any]
) -> None:
    (arm,) = override(sweep, [assignment]).arms
    path = assignment.partition("=")[0]
    assert arm.grid[path] == values
    assert path not in arm.search


def test_a_part_of_the_sweep_can_be_given_as_a_whole(sweep: SweepFile) -> None:
    changed = override(sweep, ["resources={cpus_per_trial: 2, pack: off}", "seed=3"])
    assert (changed.resources.cpus_per_trial, changed.resources.pack, changed.seed) == (2, "off", 3)
    assert override(sweep, ["tracking={}"]).tracking.uri is None
    assert override(sweep, ["training={max_steps: 3}"]).training == {"max_steps": 3}
    assert override(sweep, ["resources.pack=8"]).resources.pack == 8


@pytest.mark.parametrize(
    ("assignment", "part"),
    [
        ("seed=0042", "write 42 for a number"),
        ("seed=4,008", "write 8 for a number"),
        ("replicates=[001,002,010]", "write 1 for a number"),
        ("replicates=4,1", "a list stands in brackets"),
        ("search.hours=1:30", "base 60"),
        ("model.n_embd=16:32", "base 60"),
        ("model.n_embd=8,[", "not YAML"),
        ("model.n_embd={low: 1, high: 2, low: 3}", "'low' is given twice"),
        ("training.max_steps=100 #x", "not YAML"),
        ("training.max_steps=" + "9" * 5_000, "too large"),
        ("training.learning_rate={low: 1e-3, high: 1, log: yes}", "should be true or false"),
        ("search.confirm={{ x }}", "a map cannot be a key"),
        ("search.confirm.top.x=1", "search.confirm.top"),
        ("arms.0=3", "arms.0: arms has no settings"),
        ("resource={a: 1}", "did you mean 'resources'?"),
        ("resources={cpus: 1}", "resources.cpus: unknown setting 'cpus'"),
        ("description=\udcff", "not UTF-8"),
        ("model.pe_type=\udcff,rope", "not UTF-8"),
        ("model.n_embd=\udcff", "U+DCFF"),
        ("", "path=value"),
        ("=", "unknown setting ''"),
    ],
)
def test_what_is_refused_names_the_override(sweep: SweepFile, assignment: str, part: str) -> None:
    with pytest.raises(UserError) as refused:
        override(sweep, ["seed=1", assignment])
    message = str(refused.value)
    assert message.startswith("override '")
    assert "\n" not in message
    assert part in message
    assert len(message.partition(": ")[0]) < 120


def test_a_password_in_an_override_is_not_shown(sweep: SweepFile) -> None:
    with pytest.raises(UserError) as refused:
        override(sweep, ["tracking.uri=http://user:word@host/\udcff"])
    assert "word" not in str(refused.value)
    assert "tracking.uri=http://user:...@host" in str(refused.value)


def test_what_an_override_does_to_an_arm_names_the_override(tmp_path: Path) -> None:
    for given, part in {
        "training.max_steps=1e2": "training.max_steps: should be a valid integer",
        "model.n_embd=63": "n_embd=63 is odd",
    }.items():
        with pytest.raises(UserError) as refused:
            make_plan("quickstart", ["corpus=embedded", given], State(tmp_path))
        assert part in str(refused.value)
        assert str(refused.value).endswith(f"(by the override {given!r})")


@pytest.mark.parametrize("name", ["file:a #b.txt", "file:a, b.txt", "0042"])
def test_the_name_of_a_corpus_stands_for_it_and_leaves_its_test_split(
    sweep: SweepFile, name: str
) -> None:
    assert override(sweep, [f"corpus={name}"]).corpus == CorpusSpec(name=name)
    tested = override(sweep, ["corpus.test=0.05", f"corpus={name}"])
    assert tested.corpus == CorpusSpec(name=name, test=0.05)
    whole = override(tested, ["corpus={name: embedded}"])
    assert whole.corpus == CorpusSpec(name="embedded", test=0.0)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("corpus.test=0.6", "corpus.test: should be less than or equal to 0.5, not 0.6"),
        ("corpus.test=-1", "corpus.test: should be greater than or equal to 0, not -1"),
        ("corpus.tset=0.1", "corpus.tset: unknown setting 'tset'; did you mean 'test'?"),
        ("corpus.test=yes", "corpus.test: should be a valid number, not 'yes'"),
    ],
)
def test_a_wrong_test_split_is_refused(sweep: SweepFile, assignment: str, message: str) -> None:
    with pytest.raises(UserError) as refused:
        override(sweep, [assignment])
    assert str(refused.value).endswith(message)


def test_a_corpus_is_a_name_or_its_settings() -> None:
    arms = [{"model": {"variant": "bigram"}}]
    for given in ("embedded", {"name": "embedded"}):
        read = validate(SweepFile, {"name": "x", "corpus": given, "arms": arms}, "")
        assert read.corpus == CorpusSpec(name="embedded")
    with pytest.raises(UserError, match=r"^corpus: give a name, or \{name: NAME, .*\}, not 3$"):
        validate(SweepFile, {"name": "x", "corpus": 3, "arms": arms}, "")


@pytest.mark.parametrize(
    "assignments",
    [
        [
            "decide.max_seeds=5",
            "decide.claims=study",
            "replicates=3",
            "search.confirm.replicates=2",
        ],
        ["replicates=1", "search.confirm=null", "decide=null"],
        ["seed=18446744073709551615", "seed=1", "model.n_embd=8"],
        ["arms=[]", "arms=[{model: {variant: bigram}}]", "search={}"],
    ],
)
def test_changes_are_valid_together_in_any_order(
    sweep: SweepFile, assignments: Sequence[str]
) -> None:
    decided = override(sweep, ["decide={claims: study}"])
    expected = override(decided, assignments)
    if len({each.partition("=")[0] for each in assignments}) == len(assignments):
        for order in itertools.permutations(assignments):
            assert override(decided, order) == expected


def test_what_no_later_change_puts_right_names_the_first_override(sweep: SweepFile) -> None:
    with pytest.raises(UserError, match=r"override 'decide.max_seeds=1': "):
        override(sweep, ["decide.max_seeds=1", "decide.claims=study", "model.n_embd=8"])
    with pytest.raises(UserError, match=r"override 'arms=3': arms: "):
        override(sweep, ["arms=3", "model.n_embd=8"])

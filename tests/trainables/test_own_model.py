"""A model of the user's own, named as MODULE:CLASS."""

import os
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from trainables.config import TrialConfig
from trainables.errors import UserError
from trainables.training.loop import initial_state
from trainables.variants import model_class, settings_schema

MakeTrial = Callable[..., TrialConfig]

SOURCE = """
from dataclasses import dataclass

import torch
from bigram_models import LanguageModel


class Tilted(LanguageModel):
    @dataclass(frozen=True, kw_only=True)
    class Config:
        tilt: float
        width: int = 4

        def __post_init__(self):
            if self.width > 9:
                raise ValueError(f"width={self.width} is too wide")

    def __init__(self, config, vocab_size, block_size, generator):
        super().__init__(vocab_size, context_size=block_size)
        self.row = torch.nn.Parameter(torch.randn(vocab_size, generator=generator) * config.tilt)

    def forward(self, ids_BT):
        return self.row.expand(*ids_BT.shape, -1)


class Reserved(Tilted):
    @dataclass(frozen=True, kw_only=True)
    class Config:
        batch_size: int = 1


class Bare(LanguageModel):
    pass


class Stranger:
    pass


A_NUMBER = 3
"""


@pytest.fixture
def own_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file of an importable module `own_model`, forgotten afterwards."""
    file = tmp_path / "own_model.py"
    file.write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    yield file
    sys.modules.pop("own_model", None)
    model_class.cache_clear()
    settings_schema.cache_clear()


@pytest.mark.usefixtures("own_model")
def test_it_is_built_with_its_settings(make_trial: MakeTrial) -> None:
    trial = make_trial("own_model:Tilted", tilt=0, block_size=5)
    model = initial_state(trial, vocab_size=6).model
    assert type(model).__name__ == "Tilted"
    assert model.context_size == 5
    assert torch.equal(model(torch.zeros(2, 3, dtype=torch.int64)), torch.zeros(2, 3, 6))
    assert trial.flat["tilt"] == 0.0
    assert trial.flat["width"] == 4
    assert TrialConfig.from_dict(trial.to_dict()) == trial


def test_its_source_decides_the_key(own_model: Path, make_trial: MakeTrial) -> None:
    def key() -> str:
        return make_trial("own_model:Tilted", tilt=1).key

    before = key()
    assert key() == before
    own_model.write_text(SOURCE.replace("* config.tilt", "+ config.tilt"))
    assert key() != before
    own_model.write_text(SOURCE)
    os.utime(own_model, (0, 0))
    assert key() == before


@pytest.mark.usefixtures("own_model")
def test_its_settings_decide_the_key(make_trial: MakeTrial) -> None:
    settings: list[dict[str, Any]] = [{"tilt": 1}, {"tilt": 2}, {"tilt": 1, "width": 5}]
    assert len({make_trial("own_model:Tilted", **each).key for each in settings}) == 3


@pytest.mark.usefixtures("own_model")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "model.tilt: field required"),
        ({"tilt": "1"}, "model.tilt: should be a valid number, not '1'"),
        ({"tilt": 1, "widht": 3}, "model.widht: unknown setting 'widht'; did you mean 'width'?"),
        ({"tilt": 1, "width": 10}, "model: width=10 is too wide"),
    ],
)
def test_its_settings_are_validated(
    settings: dict[str, Any], message: str, make_trial: MakeTrial
) -> None:
    with pytest.raises(UserError) as refused:
        make_trial("own_model:Tilted", **settings)
    assert message in str(refused.value)


@pytest.mark.usefixtures("own_model")
@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ("no_such_module:Model", r"cannot import.*No module named 'no_such_module'.*installed"),
        ("own_model:Missing", r"cannot import.*'Missing'"),
        ("own_model:Stranger", "not a subclass of bigram_models.LanguageModel"),
        ("own_model:A_NUMBER", "not a subclass"),
        ("own_model:Bare", "no dataclass Config"),
        ("own_model:Reserved", "setting 'batch_size', which is one of the trial itself"),
        ("own_model:", "cannot import"),
        (":Tilted", "MODULE:CLASS"),
        (".own_model:Tilted", "MODULE:CLASS"),
        ("own_model", "MODULE:CLASS"),
    ],
)
def test_what_is_no_model_is_refused(variant: str, message: str, make_trial: MakeTrial) -> None:
    with pytest.raises(UserError, match=message):
        make_trial(variant)


def test_a_module_with_a_syntax_error_is_refused(own_model: Path, make_trial: MakeTrial) -> None:
    own_model.write_text("class Tilted(:\n")
    with pytest.raises(UserError, match=r"cannot import 'own_model:Tilted': .*line 1"):
        make_trial("own_model:Tilted")


@pytest.mark.parametrize("name", ["variant", "seed", "corpus"])
def test_a_setting_may_not_hide_one_of_the_trial(
    name: str, own_model: Path, make_trial: MakeTrial
) -> None:
    own_model.write_text(SOURCE.replace("batch_size: int = 1", f"{name}: int = 1"))
    with pytest.raises(UserError, match=f"setting '{name}'"):
        make_trial("own_model:Reserved")


@pytest.mark.parametrize(
    ("code", "line", "reason"),
    [
        ("import sys\n\nsys.exit(7)\n", 3, "SystemExit: 7"),
        ("raise SystemExit\n", 1, "SystemExit"),
        ("raise RuntimeError('boom\\nand more')\n", 1, "RuntimeError: boom"),
        ("raise KeyError('x')\n", 1, "KeyError: 'x'"),
        ("raise ValueError('odd')\n", 1, "ValueError: odd"),
        ("1 / 0\n", 1, "ZeroDivisionError: division by zero"),
        ("assert False\n", 1, "AssertionError"),
        ("class Odd(BaseException): pass\nraise Odd('deep')\n", 2, "Odd: deep"),
        ("raise GeneratorExit\n", 1, "GeneratorExit"),
        ("import no_such_library\n", 1, "ModuleNotFoundError: No module named 'no_such_library'"),
        ("def f(): f()\nf()\n", 1, "RecursionError"),
        ("import json\njson.loads('{')\n", 2, "JSONDecodeError"),
        ("def __getattr__(name):\n    raise OSError(name)\n", 2, "OSError: Tilted"),
    ],
)
def test_whatever_a_module_raises_is_said_with_its_line(
    code: str, line: int, reason: str, own_model: Path, make_trial: MakeTrial
) -> None:
    own_model.write_text(code)
    with pytest.raises(UserError) as refused:
        make_trial("own_model:Tilted", tilt=1)
    message = str(refused.value)
    assert f"cannot import 'own_model:Tilted': {own_model}:{line}: {reason}" in message
    assert "\n" not in message


def test_a_module_may_print(own_model: Path, make_trial: MakeTrial) -> None:
    own_model.write_text(SOURCE + "\nprint('hello')\n")
    assert make_trial("own_model:Tilted", tilt=1).flat["width"] == 4


def test_ctrl_c_in_a_module_is_no_fault_of_it(own_model: Path, make_trial: MakeTrial) -> None:
    own_model.write_text("raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        make_trial("own_model:Tilted", tilt=1)


TILT = "        tilt: float\n"
TOO_WIDE = '                raise ValueError(f"width={self.width} is too wide")\n'


@pytest.mark.parametrize(
    ("before", "after", "parts"),
    [
        (TILT, "        tilt: 'Unknown'\n", ["Config of 'own_model:Tilted' cannot be read",
                                             "NameError: name 'Unknown' is not defined"]),
        (TILT, "        tilt: torch.Tensor\n", ["Config of", "Tensor"]),
        (TILT, "        tilt: 3\n", ["Config of", "Unable to generate"]),
        (TILT, "        model_dump: int = 1\n        tilt: int = 1\n", ["Config of", "model_dump"]),
        (TILT, "        tilt: float = dataclasses.field(init=False)\n", ["TypeError", "'tilt'"]),
        (TILT, TILT + "        when: object = torch.float32\n",
         ["model: the settings of own_model:Tilted are no plain data", "dtype"]),
        (TILT, TILT + "        odd: int = dataclasses.field(default_factory=lambda: {}['x'])\n",
         ["Config of", "own_model.py:", "KeyError: 'x'"]),
        (TOO_WIDE, "                raise KeyError('w')\n", ["own_model.py:", "KeyError: 'w'"]),
        (TOO_WIDE, "                raise SystemExit(3)\n", ["own_model.py:", "SystemExit: 3"]),
        (TOO_WIDE, "                self.width = 3\n", ["own_model.py:", "FrozenInstanceError"]),
        ("class Tilted(LanguageModel):", "class Meta(type(LanguageModel)):\n"
         "    @property\n    def Config(cls):\n        raise OSError('none')\n\n"
         "class Tilted(LanguageModel, metaclass=Meta):\n    pass\n\nclass Other(LanguageModel):",
         ["cannot import 'own_model:Tilted'", "OSError: none"]),
    ],
)  # fmt: skip
def test_whatever_its_settings_raise_is_said(
    before: str, after: str, parts: list[str], own_model: Path, make_trial: MakeTrial
) -> None:
    assert before in SOURCE
    own_model.write_text("import dataclasses\n" + SOURCE.replace(before, after))
    with pytest.raises(UserError) as refused:
        make_trial("own_model:Tilted", tilt=1, width=10 if before == TOO_WIDE else 4)
    for part in parts:
        assert part in str(refused.value)


def test_a_model_without_a_source_file_is_refused(own_model: Path, make_trial: MakeTrial) -> None:
    own_model.write_text(f"code = {SOURCE!r}\nexec(compile(code, 'nowhere.py', 'exec'))\n")
    assert make_trial("own_model:Tilted", tilt=1).key  # its module has one
    model_class.cache_clear()
    settings_schema.cache_clear()
    sys.modules.pop("own_model")
    archive = own_model.parent / "archive.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("own_model.py", SOURCE)
    own_model.unlink()
    sys.path.insert(0, str(archive))
    try:
        with pytest.raises(
            UserError, match="has no source file, which is part of its trials' keys"
        ):
            make_trial("own_model:Tilted", tilt=1)
    finally:
        sys.path.remove(str(archive))

"""What a trial takes of a GPU, with a GPU whose numbers are made up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from trainables.config import TrialConfig
from trainables.data.corpus import tokenise
from trainables.training import gpu_memory
from trainables.training.gpu_memory import GpuUse, is_out_of_memory, measure, train_briefly
from trainables.training.loop import Splits

CPU = torch.device("cpu")
CORPUS = tokenise("verse", "to be or not to be\n" * 30)
MakeTrial = Callable[..., TrialConfig]


@dataclass
class FakeGpu:
    """A GPU of 1,000 bytes; a process's context takes 50 of them."""

    others: int = 0  # that processes of somebody else have
    libraries: int = 0  # that they took by now
    reserved: int = 0  # of torch's allocator now
    peak: int = 0
    peaks: tuple[int, ...] = ()  # of the trials that come

    def mem_get_info(self, _: Any = None) -> tuple[int, int]:
        return 1_000 - self.others - 50 - self.libraries - self.reserved, 1_000

    def train(self, *_: object) -> None:
        """Take what the next trial takes, and give most of it back."""
        self.peak, *rest = self.peaks
        self.peaks = tuple(rest)
        self.reserved, self.libraries = 10, 7
        if self.peak > 900:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    def empty(self, *_: object) -> None:
        self.reserved = self.peak = 0


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    fake = FakeGpu()
    for name, value in {
        "is_available": lambda: True,
        "mem_get_info": fake.mem_get_info,
        "memory_reserved": lambda _: fake.reserved,
        "max_memory_reserved": lambda _: fake.peak,
        "reset_peak_memory_stats": lambda _: None,
        "empty_cache": fake.empty,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(gpu_memory, "_free_beside_another", lambda: fake.mem_get_info()[0] - 50)
    monkeypatch.setattr(gpu_memory, "train_briefly", fake.train)
    return fake


@pytest.mark.parametrize(
    ("others", "peaks", "expected"),
    [
        (0, (300,), GpuUse(50 + 7 + 300, 1_000)),
        (0, (300, 500, 400), GpuUse(50 + 7 + 500, 1_000)),
        (600, (300,), GpuUse(50 + 7 + 300, 400)),  # what others have is neither ours nor free
        (0, (300, 901, 400), GpuUse(1_000, 1_000)),  # one that does not fit takes all
        (600, (399,), GpuUse(400, 400)),
    ],
)
def test_a_process_takes_its_context_its_libraries_and_its_peak(
    gpu: FakeGpu, make_trial: MakeTrial, others: int, peaks: tuple[int, ...], expected: GpuUse
) -> None:
    gpu.others, gpu.peaks = others, peaks
    assert measure([make_trial("bigram")] * len(peaks), CORPUS, CPU) == expected


def test_what_comes_late_is_not_measured(
    gpu: FakeGpu, make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_memory, "MEASURING_S", -1)
    gpu.peaks = (300, 500)
    assert measure([make_trial("bigram")] * 2, CORPUS, CPU) == GpuUse(357, 1_000)


def test_a_trial_that_fails_by_itself_does_not_keep_others_from_being_measured(
    gpu: FakeGpu, make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    def train(trial: TrialConfig, *_: object) -> None:
        if trial.model.variant == "bigram":
            raise ZeroDivisionError("of its own")
        gpu.train()

    gpu.peaks = (300,)
    monkeypatch.setattr(gpu_memory, "train_briefly", train)
    trials = [make_trial("bigram"), make_trial("attention")]
    assert measure(trials, CORPUS, CPU) == GpuUse(357, 1_000)
    assert caplog.messages == ["bigram cannot be measured: of its own"]


def test_without_a_gpu_there_is_nothing_to_measure(make_trial: MakeTrial) -> None:
    if not torch.cuda.is_available():
        assert measure([make_trial("bigram")], CORPUS) is None


def test_another_process_says_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_memory, "ANOTHER_PROCESS", "print('a banner'); print(123)")
    assert gpu_memory._free_beside_another() == 123
    monkeypatch.setattr(gpu_memory, "ANOTHER_PROCESS", "raise SystemExit('busy or unavailable')")
    with pytest.raises(RuntimeError, match="takes no second process: busy or unavailable"):
        gpu_memory._free_beside_another()


@pytest.mark.parametrize("evaluation", ["exact", "sampled", "published"])
@pytest.mark.parametrize("variant", ["bigram", "count", "attention"])
def test_a_trial_is_trained_briefly_whatever_its_training(
    variant: str, evaluation: str, make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_memory, "EVALUATION_TOKENS_GPU", 16)
    steps: list[torch.Size] = []
    evaluated: list[torch.Size] = []
    trial = make_trial(
        variant, evaluation=evaluation, batch_size=4, max_steps=10**9, eval_every=10**9,
        warmup_steps=10**8, learning_rate=1e30,
    )  # fmt: skip
    forward = trial.model.model_class.forward

    def seeing(model: Any, ids_BT: torch.Tensor) -> torch.Tensor:
        (evaluated if torch.is_inference_mode_enabled() else steps).append(ids_BT.shape)
        return forward(model, ids_BT)

    monkeypatch.setattr(trial.model.model_class, "forward", seeing)
    train_briefly(trial, CORPUS.vocab_size, Splits.of(CORPUS, CPU))
    expected = 0 if variant == "count" else 2 if evaluation == "published" else 3
    assert steps == [(4, 8)] * expected
    if evaluation == "exact" and variant == "bigram":
        assert evaluated == []  # the pairs of each split are counted
    elif evaluation == "exact" and variant == "attention":
        assert evaluated == [(4, 8), (4, 8)]  # two batches of 16 tokens, of each split
    elif evaluation == "exact":
        assert sum(shape.numel() for shape in evaluated) == len(CORPUS.train) + 57 - 2
    else:  # two batches of each split, which the study evaluated once more at the start
        looked = 2 if evaluation == "published" and variant != "count" else 1
        assert evaluated == [(4, 8)] * 4 * looked


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (torch.AcceleratorError("CUDA error: out of memory\nCompile with ..."), True)
        if hasattr(torch, "AcceleratorError")
        else (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate"),
         False),
        (MemoryError("CUDA error: out of memory"), False),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
    ],
)  # fmt: skip
def test_what_says_that_a_gpu_is_full(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected

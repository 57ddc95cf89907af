"""Texts of the user's own: what is refused, and what comes through to the character."""

import hashlib
from pathlib import Path

import pytest

from trainables.corpus import Corpus, decode, load_corpus
from trainables.errors import UserError

TEXT = "to be or not to be, that is the question\n" * 5


def corpus_of(tmp_path: Path, content: str | bytes) -> Corpus:
    file = tmp_path / "text.txt"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return load_corpus(f"file:{file}", tmp_path / "cache")


def text_of(corpus: Corpus) -> str:
    return decode([*corpus.train.tolist(), *corpus.validation.tolist()], corpus.vocabulary)


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        TEXT.replace("\n", "\r\n"),
        "größe 漢字 🎭 e\N{COMBINING ACUTE ACCENT}\n" * 20,
        "\x00 nul and \u2028 too\n" * 20,
    ],
    ids=["plain", "carriage returns", "beyond ASCII", "odd characters"],
)
def test_a_text_comes_through_to_the_character(text: str, tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, text)
    assert text_of(corpus) == text
    assert corpus.vocabulary == "".join(sorted(set(text)))
    assert corpus.vocab_size == len(set(text))
    assert len(corpus.train) == int(0.9 * len(text))
    assert corpus.digest == hashlib.sha256(text.encode()).hexdigest()
    assert corpus.train.dtype == corpus.validation.dtype == "int32"


def test_a_byte_order_mark_is_not_text(tmp_path: Path) -> None:
    marked = corpus_of(tmp_path, b"\xef\xbb\xbf" + TEXT.encode())
    assert text_of(marked) == TEXT
    assert marked.digest == corpus_of(tmp_path, TEXT).digest


def test_ids_are_ranks_among_the_sorted_characters(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, "cab" * 20)
    assert corpus.vocabulary == "abc"
    assert corpus.train[:3].tolist() == [2, 0, 1]
    assert corpus.encode("bad"[:2]) == [1, 0]


def test_an_unknown_character_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the character 'é' does not occur"):
        corpus_of(tmp_path, TEXT).encode("thé")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        ("a" * 9, "too short: 9 characters leave 8 for training and 1 for validation"),
        (b"caf\xe9 " * 20, r"not UTF-8 \(byte 3: .*iconv"),
        ("ab" * 45 + "abxaby" + "abab", r"2 characters that training never saw: 'x' 'y'; remove"),
    ],
    ids=["empty", "only a mark", "too short", "latin-1", "unseen in training"],
)
def test_a_text_that_cannot_be_trained_on_is_refused(
    content: str | bytes, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message) as refused:
        corpus_of(tmp_path, content)
    assert "text.txt" in str(refused.value)


@pytest.mark.parametrize("name", ["", "shakespeare", "file:", "http://x/y.txt"])
def test_an_unknown_corpus_is_refused_with_the_known_ones(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="choose tinyshakespeare, embedded or file:PATH"):
        load_corpus(name, tmp_path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none.txt", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(UserError, match=f"cannot be read .{reason}.*{path}"):
            load_corpus(f"file:{path}", tmp_path)


def test_a_path_may_start_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.txt").write_text(TEXT)
    assert text_of(load_corpus("file:~/mine.txt", tmp_path)) == TEXT


def test_the_longest_block_leaves_one_token_to_predict(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, "ab" * 50)
    assert len(corpus.validation) == 10
    corpus.check_block(9)
    with pytest.raises(UserError, match=r"block_size=10 is longer .*9 tokens and one to predict"):
        corpus.check_block(10)


def test_the_embedded_corpus_needs_no_file(embedded: Corpus) -> None:
    assert embedded.name == "embedded"
    assert 1_000_000 < len(embedded.train) + len(embedded.validation) < 1_200_000
    embedded.check_block(256)


def test_tinyshakespeare_has_its_known_size(tinyshakespeare: Corpus) -> None:
    assert tinyshakespeare.vocab_size == 65
    assert len(tinyshakespeare.train) + len(tinyshakespeare.validation) == 1_115_394
    assert tinyshakespeare.digest == (
        "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
    )

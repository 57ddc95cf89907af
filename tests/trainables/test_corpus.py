"""Texts of the user's own: what is refused, and what comes through to the character."""

import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import trainables.data.corpus
from trainables.data.corpus import MOST_BYTES, Corpus, decode, load_corpus, tokenise
from trainables.errors import UserError, brief

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
    ],
    ids=["empty", "only a mark", "too short", "latin-1"],
)
def test_a_text_that_cannot_be_trained_on_is_refused(
    content: str | bytes, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message) as refused:
        corpus_of(tmp_path, content)
    assert "text.txt" in str(refused.value)


def test_characters_that_only_validation_has_are_part_of_the_vocabulary(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, "ab" * 45 + "abxaby" + "xbab")
    assert (corpus.vocabulary, corpus.unseen, corpus.unseen_tokens) == ("abxy", "xy", 3)
    assert "3 of the 10 characters that validate are none" in corpus.warning
    assert "('x' 'y')" in corpus.warning
    assert corpus_of(tmp_path, TEXT).warning == ""


def test_the_name_of_a_text_is_taken_for_what_it_may_mean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_text.txt").write_text(TEXT)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("my_text.txt", "./my_text.txt", "~/my_text.txt", str(tmp_path / "my_text.txt")):
        with pytest.raises(UserError) as refused:
            load_corpus(name, tmp_path)
        said = f"is a file; a text of your own is named with file: before it, file:{name}"
        assert str(refused.value) == f"corpus {brief(name)} {said}"
        assert load_corpus(f"file:{name}", tmp_path).vocabulary
    for name in ("your_text.txt", "folder", "a\0b.txt", "~nobody-here/x.txt"):
        with pytest.raises(UserError, match=r"does not exist; choose .* or file:PATH$"):
            load_corpus(name, tmp_path)
    with pytest.raises(UserError, match="does not exist; did you mean tinyshakespeare"):
        load_corpus("tinyshakespere", tmp_path)


@pytest.mark.parametrize("name", ["", "play", "file:", "http://x/y.txt"])
def test_an_unknown_corpus_is_refused_with_the_known_ones(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"choose tinyshakespeare, embedded or file:PATH$"):
        load_corpus(name, tmp_path)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("none.txt", "cannot be read (No such file or directory)"),
        ("none/below.txt", "cannot be read (No such file or directory)"),
        ("text.txt/below", "cannot be read (Not a directory)"),
        (".", "cannot be read (Is a directory)"),
        ("loop", "cannot be read (Too many levels of symbolic links)"),
        ("x" * 300, "cannot be read (File name too long)"),
        ("x/" * 3000, "cannot be read (File name too long)"),
        ("pipe", "cannot be read (Not a regular file but a device, a pipe or a socket)"),
        ("/dev/zero", "cannot be read (Not a regular file but a device, a pipe or a socket)"),
        ("/dev/urandom", "cannot be read (Not a regular file but a device, a pipe or a socket)"),
        ("/proc/self/mem", "cannot be read (Input/output error)"),
        ("nul\0.txt", "cannot be read (No file can have this name)"),
        ("~nosuchuser/x", "cannot be read (The home directory ~nosuchuser is not known)"),
        ("\udce9.txt", "its name is not UTF-8; rename the file"),
    ],
    ids=lambda value: repr(value[:12]),
)
def test_what_is_no_readable_file_is_refused_in_a_line(
    path: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(TEXT)
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / os.fsdecode(b"\xe9.txt")).write_text(TEXT)
    with pytest.raises(UserError) as refused:
        load_corpus(f"file:{path}", tmp_path)
    message = str(refused.value)
    assert reason in message
    assert message.isprintable()  # one line, nothing that a terminal obeys
    message.encode()


def test_an_unreadable_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an error of the system: root, who may run the tests, can read any folder."""

    def stat(path: Path, **_: object) -> os.stat_result:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", stat)
    with pytest.raises(UserError, match=r"cannot be read \(Permission denied\)"):
        load_corpus(f"file:{tmp_path}/text.txt", tmp_path)
    with pytest.raises(UserError, match=r"Permission denied\); SWEEPS_CORPORA names another"):
        load_corpus("tinyshakespeare", tmp_path)


def test_a_text_that_is_too_large_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with (tmp_path / "sparse.txt").open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(UserError, match=r"more than 1,024 MiB\); train on a part of it"):
        load_corpus(f"file:{tmp_path}/sparse.txt", tmp_path)


def test_a_text_that_does_not_fit_into_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> bytes:
        raise MemoryError

    monkeypatch.setattr(trainables.data.corpus, "read_regular_file", full)
    with pytest.raises(UserError, match=r"text\.txt' does not fit into the memory.*head -c"):
        corpus_of(tmp_path, TEXT)


def test_a_text_that_comes_in_pieces_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "größe 漢字 🎭 a\n" * 20
    whole = corpus_of(tmp_path, text)
    for piece_bytes in (1, 2, 3, 7):  # so characters are cut
        monkeypatch.setattr(trainables.data.corpus, "PIECE_BYTES", piece_bytes)
        pieces = corpus_of(tmp_path, text)
        assert text_of(pieces) == text
        assert (pieces.digest, pieces.vocabulary) == (whole.digest, whole.vocabulary)
        with pytest.raises(UserError, match=r"not UTF-8 \(byte 40: invalid start byte\)"):
            corpus_of(tmp_path, b"a" * 40 + b"\xff" + b"a" * 40)
        with pytest.raises(UserError, match=r"not UTF-8 \(byte 80: unexpected end of data\)"):
            corpus_of(tmp_path, b"a" * 80 + "é".encode()[:1])


def test_a_large_text_takes_memory_by_its_ids(tmp_path: Path) -> None:
    """Sorting its characters took twenty times the memory of its ids, and a minute for 50 MB."""
    megabytes = 24
    text = "to be or not to be, that is the question 🎭\n".encode()
    (tmp_path / "large.txt").write_bytes(text * (megabytes * 2**20 // len(text)))
    script = (
        "import resource, sys; from pathlib import Path;"
        "from trainables.data.corpus import load_corpus;"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024; before = peak();"
        "corpus = load_corpus(sys.argv[1], Path()); print(peak() - before)"
    )
    command = [sys.executable, "-c", script, f"file:{tmp_path}/large.txt"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert float(done.stdout) < 10 * megabytes  # one byte a character, and four of its id


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


def test_the_test_split_is_the_end_and_the_rest_is_split_as_a_whole_text_is(
    tmp_path: Path,
) -> None:
    text = "".join(map(chr, range(100, 300)))
    whole, tested = (tokenise("text", text, test) for test in (0.0, 0.05))
    shorter = tokenise("text", text[:190])
    assert len(whole.test) == 0
    assert [len(tested.train), len(tested.validation), len(tested.test)] == [171, 19, 10]
    assert decode(tested.test.tolist(), tested.vocabulary) == text[190:]
    assert text_of(tested) == text_of(shorter) == text[:190]
    assert (tested.digest, tested.vocabulary) == (whole.digest, whole.vocabulary)
    file = tmp_path / "text.txt"
    file.write_text(text)
    loaded = load_corpus(f"file:{file}", tmp_path, 0.05)
    assert loaded.test.tolist() == tested.test.tolist()
    assert len(load_corpus("embedded", tmp_path, 0.05).test) > 1_000


def test_characters_of_the_test_split_alone_are_no_warning_about_validation() -> None:
    tested = tokenise("text", "ab" * 90 + "c" * 20, 0.1)
    assert len(tested.test) == 20
    assert (tested.unseen, tested.unseen_tokens, tested.warning) == ("", 0, "")
    assert tokenise("text", "ab" * 90 + "c" * 20).unseen == "c"


def test_a_text_without_room_for_a_test_is_refused() -> None:
    message = "20 characters leave 17 for training and 2 for validation, and 1 for the test, and"
    with pytest.raises(UserError, match=message):
        tokenise("text", "ab" * 10, 0.05)

"""Tokens of the One Billion Word benchmark: bytes, and pieces of words."""

import inspect
import optparse
import pathlib
import sys

import numpy as np
import pytest
import sentencepiece

from equistar import tasks
from equistar._cli import _data
from equistar._cli._output import CommandError
from equistar.tasks import _lm1b


LINES = (" ".join(line.split()) for line in inspect.getsource(optparse).splitlines())
SENTENCES = [*filter(None, LINES), "a naïve cat of €5"]


@pytest.fixture
def prepared(monkeypatch, tmp_path):
    """A prepared data set, as TensorFlow Datasets reads it."""
    examples = {
        "train": [{"text": s.encode()} for s in SENTENCES],
        # Mock data are of strings.
        "test": [{"text": s} for s in SENTENCES[:50]],
    }
    version = tmp_path / "lm1b" / "1.1.0"
    version.mkdir(parents=True)
    (version / "dataset_info.json").write_text("{}")
    monkeypatch.setattr(_lm1b, "read_split", lambda folder, split: examples[split])
    return tmp_path


def _slabs(folder, vocabulary):
    options = {"size": 4, "row": 50, "held_out": 2}
    return tasks.lm1b_slabs(vocabulary, data_dir=folder, **options)


def _prepare(folder, vocabulary, model: pathlib.Path | None = None):
    _data.PrepareData("lm1b", folder, None, vocabulary, model).run()
    return folder / "equistar_tokens" / "lm1b" / str(vocabulary)


def test_bytes_are_the_sentences_with_line_ends(prepared):
    folder = _prepare(prepared, 256)
    text = "\n".join(SENTENCES).encode() + b"\n"
    assert (folder / "train.tokens").read_bytes() == text
    held_out = "\n".join(SENTENCES[:50]).encode() + b"\n"
    assert (folder / "test.tokens").read_bytes() == held_out
    with _slabs(prepared, 256) as slabs:
        rows = np.asarray(slabs[3][tasks.Split.TRAIN]).reshape(4, 50)
        assert slabs[3].vocabulary == 256
    for row in rows:
        assert row.tobytes() in text


def test_pieces_of_words_give_back_the_sentences(prepared, capsys):
    folder = _prepare(prepared, 600)
    assert "Learning 600 pieces" in capsys.readouterr().out
    processor = sentencepiece.SentencePieceProcessor(
        model_file=str(folder / "vocabulary.model")
    )
    tokens = np.fromfile(folder / "train.tokens", "<u2")
    ends = np.flatnonzero(tokens == processor.eos_id())
    assert len(ends) == len(SENTENCES) and tokens.max() < 600
    for first, last, sentence in zip([-1, *ends], ends, SENTENCES, strict=False):
        assert processor.decode(tokens[first + 1 : last].tolist()) == sentence
    # Words, not letters.
    assert len(tokens) < 0.5 * len("".join(SENTENCES))
    with _slabs(prepared, 600) as slabs:
        assert slabs[0].vocabulary == 600
        assert slabs[0][tasks.Split.TRAIN].shape == (200,)

    # What is there is not made again; a model of one's own gives the same.
    _prepare(prepared, 600)
    assert "made already" in capsys.readouterr().out
    model = prepared / "mine.model"
    model.write_bytes((folder / "vocabulary.model").read_bytes())
    (folder / "about.json").unlink()
    _prepare(prepared, 600, model)
    assert "Learning" not in capsys.readouterr().out
    np.testing.assert_array_equal(np.fromfile(folder / "train.tokens", "<u2"), tokens)
    with pytest.raises(ValueError, match="600 pieces, not 400: pass --vocabulary 600"):
        _prepare(prepared, 400, model)


def test_what_is_missing_or_damaged_is_one_sentence(prepared, monkeypatch):
    with pytest.raises(FileNotFoundError, match="prepare lm1b --vocabulary 256"):
        _slabs(prepared, 256)
    folder = _prepare(prepared, 256)
    with (folder / "train.tokens").open("ab") as file:
        file.write(b"more")
    with pytest.raises(ValueError, match=r"delete .* and run `equistar data prepare lm1b`"):
        _slabs(prepared, 256)
    with pytest.raises(ValueError, match="vocabulary of 30000 cannot be learned"):
        _prepare(prepared, 30_000)
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(ValueError, match=r"equistar\[prepare\].*--vocabulary 256"):
        _prepare(prepared, 600)
    with pytest.raises(CommandError, match="at least 256"):
        _prepare(prepared, 100)
    with pytest.raises(CommandError, match="no file"):
        _prepare(prepared, 600, prepared / "nowhere")


@pytest.mark.parametrize("said", ["", "{}", "[1]", '{"vocabulary": "a", "tokens": {}}'])
def test_a_damaged_description_is_one_sentence(prepared, said):
    folder = _prepare(prepared, 256)
    (folder / "about.json").write_text(said)
    with pytest.raises(ValueError, match=r"about\.json is damaged: delete .* and run"):
        _slabs(prepared, 256)


def test_a_vocabulary_that_is_no_number_is_named(prepared, as_users_call):
    with pytest.raises(ValueError, match="`vocabulary` must be a whole number"):
        _slabs(prepared, "256")


def test_tokens_that_were_not_finished_are_not_there(prepared, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    folder = _prepare(prepared, 256)
    (folder / "about.json").unlink()
    monkeypatch.setattr(_lm1b, "_write", stop)
    with pytest.raises(KeyboardInterrupt):
        _prepare(prepared, 256)
    assert not _lm1b.is_tokenised(folder)


def test_what_is_tokenised_is_listed(prepared, capsys):
    _prepare(prepared, 256)
    _prepare(prepared, 600)
    capsys.readouterr()
    _data.ListData(prepared).run()
    out = capsys.readouterr().out
    assert "version 1.1.0" in out
    assert "vocabulary 256" in out and "vocabulary 600" in out

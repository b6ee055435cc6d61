"""The One Billion Word benchmark, as files of tokens."""

import io
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from .._files import write_atomically
from .._kinds import as_count
from ._slabs import Slabs
from ._text import TextDataset
from ._text_slabs import text_slabs
from ._tfds import data_folder, read_split, require_prepared, tfds_errors


LM1B = "lm1b"
BYTES = 256
"""The vocabulary of which each byte is a token, and the line's end parts sentences."""
_MODEL, _CHUNK = "vocabulary.model", 10_000


def lm1b_slabs(
    vocabulary: int = 32_000,
    *,
    size: int = 4096,
    row: int = 4096,
    held_out: int = 64,
    data_dir: str | os.PathLike[str] | None = None,
    seed: int = 0,
    ahead: int = 1,
) -> Slabs[TextDataset]:
    """Slabs of the One Billion Word benchmark, whose tokens are prepared.

    `equistar data prepare lm1b` prepares them. Reading needs no TensorFlow, tokeniser or
    network.

    **Arguments:**

    - `vocabulary`: of a tokenised copy: 32,000 word pieces, or 256 for bytes.
    - `data_dir`: where data sets are prepared, as for [`equistar.tasks.tfds_images`][].
    - `size`, `row`, `held_out`, `seed`, `ahead`: as for [`equistar.tasks.text_slabs`][].

    **Returns:** as [`equistar.tasks.text_slabs`][].

    **Raises:**

    `FileNotFoundError` if there is no such copy, `ValueError` if its files are damaged or
    an argument is not of its kind.

    ??? cite

        ```bibtex
        @article{chelba2013one,
            title={One Billion Word Benchmark for Measuring Progress in Statistical
                   Language Modeling},
            author={Chelba, Ciprian and Mikolov, Tomas and Schuster, Mike and Ge, Qi and
                    Brants, Thorsten and Koehn, Phillipp and Robinson, Tony},
            journal={arXiv:1312.3005},
            year={2013},
        }
        ```
    """
    vocabulary = as_count(vocabulary, "vocabulary")
    folder = token_folder(vocabulary, data_dir)
    if not is_tokenised(folder):
        raise FileNotFoundError(
            f"There are no tokens of '{LM1B}' with a vocabulary of {vocabulary} in "
            f"{data_folder(data_dir)}: run `equistar data prepare {LM1B} --vocabulary "
            f"{vocabulary}`, or say where they are by `data_dir` or the variable "
            "TFDS_DATA_DIR."
        )
    train, test = (_tokens(folder, split) for split in ("train", "test"))
    options = {"size": size, "row": row, "held_out": held_out}
    return text_slabs(train, test, vocabulary, **options, seed=seed, ahead=ahead)


def token_folder(
    vocabulary: int, data_dir: str | os.PathLike[str] | None = None
) -> pathlib.Path:
    """Where the tokens of a vocabulary are."""
    return data_folder(data_dir) / "equistar_tokens" / LM1B / str(vocabulary)


def is_tokenised(folder: pathlib.Path) -> bool:
    """Whether tokens are there, all of them."""
    # It is written last.
    return (folder / "about.json").is_file()


def tokenise(
    vocabulary: int,
    data_dir: str | os.PathLike[str] | None = None,
    model: pathlib.Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> pathlib.Path:
    """Writes the tokens of the prepared benchmark, and returns their folder.

    **Arguments:**

    - `vocabulary`: 256 for bytes; otherwise pieces of words, learned from the first
        million sentences by SentencePiece (unigram, with bytes for what is unknown).
    - `data_dir`: where data sets are prepared.
    - `model`: a SentencePiece model of that size, to use in place of a new one.
    - `say`: is told how far it is.
    """
    source = require_prepared(LM1B, data_dir)
    with tfds_errors(LM1B, source):
        splits = {split: read_split(source, split) for split in ("train", "test")}
    folder = token_folder(vocabulary, data_dir)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "about.json").unlink(missing_ok=True)
    if vocabulary == BYTES:
        encode = _bytes
    else:
        if model is None:
            say(f"Learning {vocabulary} pieces of words ...")
            learned = _learn(_texts(splits["train"], 1_000_000), vocabulary)
        else:
            learned = model.read_bytes()
        write_atomically(folder / _MODEL, lambda file: file.write(learned))
        encode = _subwords(learned, vocabulary)
    counts = {}
    for split, examples in splits.items():
        path, texts = folder / f"{split}.tokens", _texts(examples, len(examples))
        write_atomically(path, lambda file, t=texts: _write(file, t, encode, say))
        counts[split] = path.stat().st_size // np.dtype(_dtype(vocabulary)).itemsize
    about = {"vocabulary": vocabulary, "source": source.name, "tokens": counts}
    text = json.dumps(about)
    write_atomically(folder / "about.json", lambda file: file.write(text.encode()))
    return folder


def _dtype(vocabulary: int) -> str:
    return "<u1" if vocabulary <= 256 else "<u2" if vocabulary <= 65_536 else "<u4"


def _tokens(folder: pathlib.Path, split: str) -> np.ndarray:
    path, about = folder / f"{split}.tokens", folder / "about.json"
    again = f"delete {folder} and run `equistar data prepare {LM1B}` again."
    try:
        said = json.loads(about.read_text())
        dtype = np.dtype(_dtype(said["vocabulary"]))
        expected = said["tokens"][split] * dtype.itemsize
    except (ValueError, LookupError, TypeError) as e:
        raise ValueError(f"{about} is damaged: {again}") from e
    found = path.stat().st_size if path.is_file() else 0
    if found != expected:
        raise ValueError(f"{path} is of {found} bytes, not {expected}: {again}")
    return np.memmap(path, dtype, mode="r")


def _texts(examples: Sequence[Any], count: int) -> Iterator[bytes]:
    for i in range(min(count, len(examples))):
        text = examples[i]["text"]
        yield text.encode() if isinstance(text, str) else text


def _write(
    file: Any,
    texts: Iterable[bytes],
    encode: Callable[[list[bytes]], np.ndarray],
    say: Callable[[str], None],
) -> None:
    written, chunk = 0, []
    for text in texts:
        chunk.append(text)
        if len(chunk) == _CHUNK:
            file.write(encode(chunk).tobytes())
            written, chunk = written + len(chunk), []
            if written % 1_000_000 == 0:
                say(f"{written:,} sentences are tokenised ...")
    if chunk:
        file.write(encode(chunk).tobytes())


def _bytes(texts: list[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(text + b"\n" for text in texts), np.uint8)


def _subwords(model: bytes, vocabulary: int) -> Callable[[list[bytes]], np.ndarray]:
    processor = _sentencepiece().SentencePieceProcessor(model_proto=model)
    if processor.vocab_size() != vocabulary:
        raise ValueError(
            f"The vocabulary's file has {processor.vocab_size()} pieces, not {vocabulary}: "
            f"pass --vocabulary {processor.vocab_size()}."
        )

    def encode(texts: list[bytes]) -> np.ndarray:
        decoded = [text.decode() for text in texts]
        pieces = processor.encode(decoded, out_type=int, add_eos=True)
        return np.concatenate([np.asarray(p, _dtype(vocabulary)) for p in pieces])

    return encode


def _learn(texts: Iterator[bytes], vocabulary: int) -> bytes:
    written = io.BytesIO()
    try:
        _sentencepiece().SentencePieceTrainer.train(
            sentence_iterator=(text.decode() for text in texts),
            model_writer=written,
            model_type="unigram",
            vocab_size=vocabulary,
            byte_fallback=True,
            minloglevel=2,
        )
    except RuntimeError as e:
        raise ValueError(f"A vocabulary of {vocabulary} cannot be learned ({e}).") from e
    return written.getvalue()


def _sentencepiece() -> Any:
    try:
        import sentencepiece
    except ImportError as e:
        raise ValueError(
            "Pieces of words need SentencePiece: run pip install 'equistar[prepare]', or "
            f"take bytes by --vocabulary {BYTES}."
        ) from e
    return sentencepiece

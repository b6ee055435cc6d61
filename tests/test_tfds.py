"""Data sets of TensorFlow Datasets: read without TensorFlow, missed in one sentence."""

import gzip
import hashlib
import importlib
import importlib.util
import inspect
import io
import pathlib
import shutil
import sys
import tarfile
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from equistar import tasks
from equistar._cli import _data
from equistar._cli._output import CommandError
from equistar.tasks import _prepared, _tfds
from equistar.tasks._prepared import PREPARED


# 1,000 + 200 made images, prepared by the real builder.
FOLDER = pathlib.Path(__file__).parent / "data" / "tfds"


def _library() -> Any:
    """TensorFlow Datasets, whose types say less than they should."""
    return importlib.import_module("tensorflow_datasets")


def _digests(images):
    return sorted(hashlib.sha256(np.asarray(i).tobytes()).digest() for i in images)


@pytest.fixture(scope="module")
def cifar():
    return tasks.tfds_images("cifar10", data_dir=FOLDER)


def test_a_prepared_data_set_is_read_into_four_splits_of_bytes(cifar):
    sizes = [len(cifar[split].targets) for split in tasks.Split]
    assert sizes == [800, 100, 100, 200]
    assert cifar.in_shape == (32, 32, 3) and cifar.classes == 10
    assert cifar[tasks.Split.TRAIN].inputs.dtype == jnp.uint8
    assert "tensorflow" not in sys.modules


def test_every_image_is_in_one_split_and_seeds_split_differently(cifar):
    tfds = _library()

    builder = tfds.builder_from_directory(FOLDER / "cifar10" / "3.0.2")
    held = [example["image"] for example in builder.as_data_source("test")]
    np.testing.assert_array_equal(cifar[tasks.Split.TEST].inputs, held)
    train = np.stack([example["image"] for example in builder.as_data_source("train")])
    learned = [s for s in tasks.Split if s != tasks.Split.TEST]
    ours = np.concatenate([cifar[s].inputs for s in learned])
    assert _digests(ours) == _digests(train)
    other = tasks.tfds_images("cifar10", data_dir=FOLDER, seed=1)
    first = lambda d: np.asarray(d[tasks.Split.TRAIN].inputs[0])
    assert np.any(first(other) != first(cifar))


def _labelled(examples):
    pairs = zip(examples.inputs, examples.targets, strict=True)
    return {np.asarray(image).tobytes(): int(label) for image, label in pairs}


def test_slabs_of_a_prepared_data_set_go_through_all_of_it(cifar):
    options = {"size": 100, "held_out": 100, "data_dir": FOLDER}
    with tasks.tfds_image_slabs("cifar10", **options) as slabs:
        # The images to learn from, all but the held-out ones, are 8 slabs.
        epoch = [slabs[n] for n in range(8)]
        again = slabs[9]
    learned = [d[tasks.Split.TRAIN].inputs for d in epoch]
    held = [epoch[0][s].inputs for s in (tasks.Split.INNER_VALID, tasks.Split.OUTER_VALID)]
    whole = [cifar[s].inputs for s in tasks.Split if s is not tasks.Split.TEST]
    assert _digests(np.concatenate([*learned, *held])) == _digests(np.concatenate(whole))
    assert len(again[tasks.Split.TEST].targets) == 100
    # Labels are their images' own.
    known = {}
    for split in tasks.Split:
        known |= _labelled(cifar[split])
    assert _labelled(again[tasks.Split.TRAIN]).items() <= known.items()
    assert again.scale == cifar.scale and again.classes == 10


def test_slabs_of_damaged_data_name_them(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    shutil.copytree(FOLDER / "cifar10", tmp_path / "cifar10")
    train = next((tmp_path / "cifar10" / "3.0.2").glob("*train*"))
    train.write_bytes(train.read_bytes()[:65536] + b"x" * 65536)
    with pytest.raises(ValueError, match="equistar data prepare cifar10"):
        tasks.tfds_image_slabs("cifar10", size=100, held_out=100)
    with pytest.raises(FileNotFoundError, match="equistar data prepare imagenet"):
        tasks.named("imagenet32_resnet")


def test_a_seed_that_is_none_is_no_fault_of_the_data(as_users_call):
    images: Any = tasks.tfds_images
    with pytest.raises(ValueError, match=r"`seed` must be a whole number .*; got None"):
        images("cifar10", data_dir=FOLDER, seed=None)


def test_the_variable_says_where_data_sets_are(monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(FOLDER))
    assert tasks.tfds_images("cifar10").classes == 10


def test_a_network_trains_on_them(cifar):
    task = tasks.Classification(cifar, tasks.MLP((8,)), 16)
    params = task.init(key=jr.key(0))
    loss, slope = jax.value_and_grad(task.loss)(params, key=jr.key(1))
    assert np.isfinite(loss) and np.any(np.asarray(slope.layers[0].weight) != 0)


@pytest.mark.parametrize("name", sorted(tasks.IMAGES))
def test_the_shapes_and_classes_are_those_of_the_real_builders(name):
    tfds = _library()

    source = tasks.IMAGES[name]
    with tfds.testing.mock_data(num_examples=20):
        builder = tfds.builder(name)
        features = builder.info.features
        assert features["image"].shape == source.shape
        assert features["label"].num_classes == source.classes
        train, test = map(builder.as_data_source, ("train", source.test))
        data = _tfds._dataset(source, train, test, 0)
    sizes = [len(data[split].targets) for split in tasks.Split]
    assert sizes == [16, 2, 2, 20] and data.in_shape == source.shape


def _mock(name, **_):
    # Nothing but shapes is looked at.
    tfds = _library()
    with tfds.testing.mock_data(num_examples=20):
        train, test = map(
            tfds.builder(name).as_data_source, ("train", tasks.IMAGES[name].test)
        )
        return _tfds._dataset(tasks.IMAGES[name], train, test, 0)


def _mock_slabs(name, ahead):
    return tasks.Slabs(np.zeros(2), 1, lambda _: _mock(name), ahead=ahead)


def _mock_text(vocabulary=32_000, *, ahead):
    text = tasks.text_from_tokens(np.arange(2000) % 256, vocabulary)
    return tasks.Slabs(np.zeros(2), 1, lambda _: text, ahead=ahead)


@pytest.mark.parametrize("name", sorted(PREPARED))
def test_the_papers_tasks_have_their_shapes(name, monkeypatch):
    monkeypatch.setattr(_prepared, "tfds_images", _mock)
    monkeypatch.setattr(_prepared, "tfds_image_slabs", _mock_slabs)
    monkeypatch.setattr(_prepared, "lm1b_slabs", _mock_text)
    task = tasks.named(name)
    params = jax.eval_shape(lambda: task.init(key=jr.key(0)))
    loss = lambda p: task.loss(p, key=jr.key(1))
    assert jax.eval_shape(loss, params).shape == ()
    # The MLPs: 784-128-128-10 and 784-512-512-10. The ConvNet: 3x3 kernels, 3-32-64-64
    # channels, then 10. The transformer's 20.3M and the LSTM's are derived beside the
    # architectures.
    sizes = {
        "fashion_mnist_mlp": 118_282,
        "fashion_mnist_mlp_wide": 669_706,
        "cifar10_convnet": 56_970,
        "lm1b_transformer": 20_392_960,
        "lm1b_lstm": 12_714_240,
    }
    if name in sizes:
        assert sum(p.size for p in jax.tree_util.tree_leaves(params)) == sizes[name]


@pytest.mark.parametrize("name", tasks.SUITES["paper_in_distribution"])
def test_the_papers_tasks_in_distribution_run(name, monkeypatch):
    # CIFAR-10 is the prepared one of the repository.
    monkeypatch.setenv("TFDS_DATA_DIR", str(FOLDER))
    if name == "fashion_mnist_mlp":
        monkeypatch.setattr(_prepared, "tfds_images", _mock)
    task = tasks.named(name)
    params = task.init(key=jr.key(0))
    loss, slopes = jax.jit(jax.value_and_grad(task.loss))(params, key=jr.key(1))
    assert abs(loss - np.log(10)) < 0.3
    for slope in jax.tree_util.tree_leaves(slopes):
        assert np.all(np.isfinite(slope)) and np.any(slope != 0)


def test_what_is_not_prepared_is_said_at_once(tmp_path):
    with pytest.raises(FileNotFoundError, match="equistar data prepare mnist"):
        tasks.tfds_images("mnist", data_dir=tmp_path)
    with pytest.raises(ValueError, match="fashion_mnist"):
        tasks.tfds_images("fashion")


def test_damaged_data_sets_are_named(tmp_path):
    shutil.copytree(FOLDER, tmp_path / "tfds")
    folder = tmp_path / "tfds" / "cifar10" / "3.0.2"
    next(folder.glob("*train*")).write_bytes(b"nothing")
    with pytest.raises(ValueError, match="equistar data prepare cifar10"):
        tasks.tfds_images("cifar10", data_dir=tmp_path / "tfds")
    (folder / "dataset_info.json").write_text("{")
    with pytest.raises(ValueError, match=r"3\.0\.2"):
        tasks.tfds_images("cifar10", data_dir=tmp_path / "tfds")


def test_data_in_a_format_of_tensorflows_are_not_called_damaged(tmp_path):
    shutil.copytree(FOLDER, tmp_path / "tfds")
    about = tmp_path / "tfds" / "cifar10" / "3.0.2" / "dataset_info.json"
    about.write_text(about.read_text().replace('"array_record"', '"tfrecord"'))
    with pytest.raises(ValueError, match="in another folder, by `equistar data prep") as e:
        tasks.tfds_images("cifar10", data_dir=tmp_path / "tfds")
    assert "delete" not in str(e.value)


def test_the_newest_version_is_read(tmp_path):
    for version in ("3.0.2", "3.0.10", "2.9.9"):
        shutil.copytree(FOLDER / "cifar10" / "3.0.2", tmp_path / "cifar10" / version)
    folder = _tfds.prepared_folder("cifar10", tmp_path)
    assert folder is not None and folder.name == "3.0.10"


def test_images_of_another_shape_are_refused():
    wrong = [{"image": np.zeros((4, 4, 3), np.uint8), "label": 0}]
    with pytest.raises(ValueError, match=r"\(32, 32, 3\)"):
        _tfds._dataset(tasks.IMAGES["cifar10"], wrong, wrong, 0)


def test_preparing_without_tensorflow_or_network_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(CommandError, match=r"equistar\[prepare\]"):
        _data.prepare("mnist", tmp_path, None)
    monkeypatch.setitem(sys.modules, "tensorflow", sys)
    monkeypatch.setattr(_data, "_online", lambda: False)
    with pytest.raises(CommandError, match="--manual-dir"):
        _data.prepare("mnist", tmp_path, None)
    with pytest.raises(CommandError, match="no folder"):
        _data.prepare("mnist", tmp_path, tmp_path / "nowhere")


def _idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    path.write_bytes(gzip.compress(header + array.tobytes()))


def _take_for_real(monkeypatch, name, raw):
    """Lets a builder take made raw files for those that it would download."""
    checksums = importlib.import_module("tensorflow_datasets.core.download.checksums")
    builder = _library().builder_cls(name)
    files = {url: raw / pathlib.Path(url).name for url in builder.url_infos}
    infos = {
        url: checksums.UrlInfo(
            size=path.stat().st_size,
            checksum=hashlib.sha256(path.read_bytes()).hexdigest(),
            filename=path.name,
        )
        for url, path in files.items()
    }
    monkeypatch.setattr(builder, "url_infos", infos)


needs_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="needs equistar[prepare]"
)


@pytest.mark.slow
@needs_tensorflow
def test_the_real_builder_prepares_from_raw_files(monkeypatch, tmp_path):
    raw, rng = tmp_path / "raw", np.random.default_rng(0)
    raw.mkdir()
    for name, count in (("train", 60_000), ("t10k", 10_000)):
        images = np.zeros((count, 28, 28), np.uint8)
        images[:, 0, 0] = np.arange(count) % 251
        _idx(raw / f"{name}-images-idx3-ubyte.gz", images)
        _idx(raw / f"{name}-labels-idx1-ubyte.gz", rng.integers(0, 10, count, np.uint8))
    _take_for_real(monkeypatch, "mnist", raw)
    _data.prepare("mnist", tmp_path / "data", raw)
    data = tasks.tfds_images("mnist", data_dir=tmp_path / "data")
    assert len(data[tasks.Split.TEST].targets) == 10_000
    assert len(data[tasks.Split.TRAIN].targets) == 48_000


@pytest.mark.slow
@needs_tensorflow
def test_the_real_builder_prepares_text_and_its_tokens_are_made(monkeypatch, tmp_path):
    raw, top = tmp_path / "raw", "1-billion-word-language-modeling-benchmark-r13output"
    raw.mkdir()
    text = pathlib.Path(inspect.getfile(inspect)).read_text().splitlines()
    lines = [" ".join(line.split()) for line in text if line.strip()]
    with tarfile.open(raw / f"{top}.tar.gz", "w:gz") as archive:
        for kind, name in (("training", "news.en-1"), ("heldout", "news.en.heldout-1")):
            made = ("\n".join(lines) + "\n").encode()
            info = tarfile.TarInfo(f"{top}/{kind}-monolingual.tokenized.shuffled/{name}")
            info.size = len(made)
            archive.addfile(info, io.BytesIO(made))
    _take_for_real(monkeypatch, "lm1b", raw)
    for vocabulary in (256, 600):
        _data.PrepareData("lm1b", tmp_path / "data", raw, vocabulary).run()
        options = {"size": 4, "row": 100, "held_out": 2, "data_dir": tmp_path / "data"}
        with tasks.lm1b_slabs(vocabulary, **options) as slabs:
            assert slabs[1][tasks.Split.TRAIN].shape == (400,)
    folder = tmp_path / "data" / "equistar_tokens" / "lm1b" / "256"
    # Prepared data are shuffled.
    assert sorted((folder / "test.tokens").read_text().splitlines()) == sorted(lines)

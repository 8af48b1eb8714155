"""The way from archive to records, through tensorflow-datasets without TensorFlow.

The package's own builders need TensorFlow in three places: to unpack archives, to read files, and to encode images. The
builders here are theirs with those places filled: archives are read in memory, only the members asked for, and images go in
through pillow. Name, version, features, examples and their order are upstream's, so plain `tfds.data_source` reads the result.

Importing this module imports tensorflow-datasets, which takes seconds.
"""

import csv
import functools
import gzip
import io
import logging
import sys
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import requests
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core import registered
from tensorflow_datasets.core.download import checksums, downloader, resource
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
from tensorflow_datasets.core.hashing import Hasher
from tensorflow_datasets.image_classification import cifar, mnist
from tensorflow_datasets.text import glue

from engine.base.errors import UserError
from engine.data import catalog
from engine.data.catalog import Archive, Entry, manual
from engine.data.embedded import Pool

SILENT_SECONDS = (5, 30)
"""Wait for a connection, and for the next bytes. The downloader itself would wait for ever."""
RETRIES = 2

logging.getLogger("absl").setLevel(logging.ERROR)  # it would recommend OpenCV on every reading

Example = tuple[int, dict[str, Any]]

with registered.skip_registration():  # `tfds.builder("cifar10")` goes on to mean theirs

    class FashionMNIST(mnist.FashionMNIST):
        """Fashion-MNIST 28×28, from its four gzip files."""

        name = "fashion_mnist"

        def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[Example]]:
            images = {"train": "train-images-idx3-ubyte.gz", "test": "t10k-images-idx3-ubyte.gz"}
            labels = {"train": "train-labels-idx1-ubyte.gz", "test": "t10k-labels-idx1-ubyte.gz"}
            files = dl_manager.download({name: self.URL + name for name in (*images.values(), *labels.values())})
            return {split: self._examples(files[images[split]], files[labels[split]]) for split in images}

        def _examples(self, images: Path, labels: Path) -> Iterator[Example]:
            pixels = np.frombuffer(gzip.decompress(Path(images).read_bytes())[16:], np.uint8).reshape(-1, 28, 28)
            for index, label in enumerate(gzip.decompress(Path(labels).read_bytes())[8:]):
                yield index, {"image": Image.fromarray(pixels[index]), "label": label}

    class Cifar10(cifar.Cifar10):
        """CIFAR-10 from its binary archive."""

        name = "cifar10"

        def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[Example]]:
            facts = self._cifar_info
            archive = dl_manager.download(facts.url)
            with tarfile.open(archive) as opened:
                names = _member(opened, facts.prefix + facts.label_files[0]).decode().split("\n")
            self.info.features["label"].names = [name for name in names if name]
            return {
                "train": self._examples(archive, "train_", facts.train_files),
                "test": self._examples(archive, "test_", facts.test_files),
            }

        def _examples(self, archive: Path, prefix: str, files: Iterable[str]) -> Iterator[Example]:
            index = 0
            with tarfile.open(archive) as opened:
                for file in files:
                    rows = np.frombuffer(_member(opened, self._cifar_info.prefix + file), np.uint8).reshape(-1, 3073)
                    for row in rows:  # a label, then the red, green and blue planes
                        image = Image.fromarray(np.ascontiguousarray(row[1:].reshape(3, 32, 32).transpose(1, 2, 0)))
                        yield index, {"id": f"{prefix}{index:05d}", "image": image, "label": int(row[0])}
                        index += 1

    class Glue(glue.Glue):
        """GLUE SST-2 from its zip; the labels of its test split are not public, and are −1."""

        name = "glue"

        def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[Example]]:
            archive = dl_manager.download(self.builder_config.data_url)
            return {split: self._examples(archive, file) for split, file in
                    (("train", "train.tsv"), ("validation", "dev.tsv"), ("test", "test.tsv"))}  # fmt: skip

        def _examples(self, archive: Path, file: str) -> Iterator[Example]:
            with zipfile.ZipFile(archive) as opened:
                text = opened.read(f"{self.builder_config.data_dir}/{file}").decode("utf-8")
            rows = csv.DictReader(io.StringIO(text, newline=None), delimiter="\t", quoting=csv.QUOTE_NONE)
            for index, row in enumerate(rows):
                sentence, label = row["sentence"], row.get("label", "-1")
                if sentence is not None and label:  # as upstream leaves out torn rows
                    yield index, {"sentence": sentence, "label": int(label), "idx": index}


def _member(opened: tarfile.TarFile, name: str) -> bytes:
    found = opened.extractfile(name)  # nothing is unpacked to the disk
    if found is None:
        raise KeyError(f"{name}: not a file")
    return found.read()


def builder(entry: Entry, where: Path) -> Any:
    """The builder of a data set in a data folder."""
    try:
        if entry.name == "sst2":
            return Glue(config="sst2", data_dir=str(where))
        return {"cifar10": Cifar10, "fashion_mnist": FashionMNIST}[entry.name](data_dir=str(where))
    except Exception as error:  # whatever a damaged dataset_info.json raises inside
        raise _damaged(entry, where / entry.source, error) from None


def is_cached(archive: Archive, entry: Entry, where: Path) -> bool:
    """Whether an earlier download of the archive is there, with the right sum."""
    name = resource.get_dl_fname(archive.url, archive.sha256)
    return any(resource.is_locally_cached(path) for path in (where / "downloads" / entry.source.split("/")[0] / name,
                                                             where / "downloads" / name))  # fmt: skip


def prepare(entry: Entry, where: Path, archives: list[Archive], progress: bool) -> None:
    """Download what is not there yet and write the records. Raises DataUnavailable for wrong or broken downloads."""
    if not progress:
        tfds.disable_progress_bar()
    built = builder(entry, where)
    registry = {one.url: checksums.UrlInfo(size=one.bytes, checksum=one.sha256, filename=one.file) for one in archives}
    built.__class__.url_infos = registry
    config = tfds.download.DownloadConfig(
        manual_dir=manual(where), try_download_gcs=False, force_checksums_validation=True,
        download_mode=tfds.GenerateMode.REUSE_DATASET_IF_EXISTS,
    )  # fmt: skip
    try:
        with _impatient(), redirect_stdout(sys.stderr):  # upstream tells its story there
            built.download_and_prepare(download_dir=str(where / "downloads"), download_config=config, file_format="array_record")
    except NonMatchingChecksumError:
        raise catalog.unavailable(entry, where, "what was downloaded is not the archive expected (its checksum differs)") from None
    except (tfds.download.DownloadError, requests.RequestException) as error:
        raise catalog.unavailable(entry, where, f"the download broke off ({type(error).__name__})") from None
    except OSError as error:
        raise UserError(f"{where}: {entry.name} cannot be prepared there ({error.strerror or error})") from None


def read(entry: Entry, where: Path) -> tuple[Pool, str]:
    """The records of a data set in file order, and their origin in words. Takes half a minute for 60,000 images."""
    built = builder(entry, where)
    place = built.data_path
    try:
        parts = [_split(built, entry, split, count) for split, count in zip(entry.splits, entry.examples, strict=True)]
    except NotImplementedError:
        raise UserError(
            f"{place}: prepared as {built.info.file_format.value}, which only TensorFlow reads; `eos data prepare {entry.name} "
            "--data-dir` with another folder writes what can be read here"
        ) from None
    except UserError:
        raise
    except Exception as error:  # array_record and protobuf have errors of their own for damaged files
        raise _damaged(entry, place, error) from None
    (inputs, labels), (test_inputs, test_labels) = parts
    origin = f"{entry.source} {built.version}, tensorflow-datasets {tfds.__version__}"
    return Pool(inputs, labels, test_inputs, test_labels), origin


def _split(built: Any, entry: Entry, split: str, count: int) -> tuple[Any, np.ndarray]:
    records = list(built.as_data_source(split))
    if len(records) != count:
        raise UserError(f"{built.data_path}: {len(records)} of {count} {split} examples are there; remove it, then prepare again")
    if entry.name == "fashion_mnist":  # its records have no number of their own, but lie sorted by the hash of it
        hasher = Hasher(split)
        keys = sorted(range(count), key=hasher.hash_key)
        order = np.argsort(keys)
    else:
        field = "id" if entry.name == "cifar10" else "idx"
        order = np.argsort([record[field] for record in records])
    labels = np.array([records[k]["label"] for k in order], np.uint8)
    if entry.name == "sst2":
        return [_text(records[k]["sentence"]) for k in order], labels
    return np.stack([records[k]["image"] for k in order]), labels


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _damaged(entry: Entry, place: Path, error: Exception) -> UserError:
    first = (str(error).strip().splitlines() or [""])[0][:200]
    return UserError(f"{place}: damaged ({type(error).__name__}: {first}); remove it, then `eos data prepare {entry.name}`")


@contextmanager
def _impatient() -> Iterator[None]:
    """Downloads give up on a silent host."""
    opened, retries = downloader._open_url, downloader.MAX_RETRIES
    downloader._open_url = functools.partial(opened, timeout=SILENT_SECONDS)
    downloader.MAX_RETRIES = RETRIES
    try:
        yield
    finally:
        downloader._open_url, downloader.MAX_RETRIES = opened, retries

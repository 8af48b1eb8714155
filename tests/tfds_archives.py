"""Tiny archives in the true layout of CIFAR-10, SST-2 and Fashion-MNIST, the same bytes in every process, and the catalogue for them."""

import gzip
import hashlib
import io
import struct
import tarfile
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from engine.data import catalog
from engine.data.catalog import Archive

CIFAR_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
COUNTS = {"cifar10": (40, 20), "sst2": (30, 8), "fashion_mnist": (50, 20)}


def cifar() -> tuple[dict[str, bytes], dict[str, Any]]:
    """Five training files of 8 images and a test file of 20; what the archive holds, in file order."""
    rng = np.random.default_rng(0)
    count = sum(COUNTS["cifar10"])
    labels = np.concatenate([np.arange(count - 20) * 3 % 10, np.arange(20) % 10]).astype(np.uint8)
    pixels = rng.integers(0, 256, (count, 3, 32, 32), np.uint8)
    rows = [bytes([label]) + image.tobytes() for label, image in zip(labels, pixels, strict=True)]
    files = {f"data_batch_{k + 1}.bin": b"".join(rows[8 * k : 8 * k + 8]) for k in range(5)}
    files |= {"test_batch.bin": b"".join(rows[40:]), "batches.meta.txt": ("\n".join(CIFAR_NAMES) + "\n\n").encode()}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, body in files.items():
            entry = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            entry.size = len(body)
            archive.addfile(entry, io.BytesIO(body))
        archive.addfile(tarfile.TarInfo("../outside.txt"))  # never unpacked, so it does no harm
    return {"cifar-10-binary.tar.gz": gzip.compress(packed.getvalue(), mtime=0)}, {"inputs": pixels.transpose(0, 2, 3, 1), "labels": labels}


def sst2() -> tuple[dict[str, bytes], dict[str, Any]]:
    """Thirty sentences to train on, eight to validate on, and two without labels."""
    words = ("a film", "that's", "good", "bad", '"quoted" tale', "über", "slow", "never dull")
    sentences = [f"{words[k % 8]} {words[k * 3 % 8]} {k} " for k in range(38)]
    labels = np.array([k * 7 % 3 % 2 for k in range(38)], np.uint8)
    rows = [f"{text}\t{label}" for text, label in zip(sentences, labels, strict=True)]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, lines in (
            ("train", ["sentence\tlabel", *rows[:30]]), ("dev", ["sentence\tlabel", *rows[30:]]),
            ("test", ["index\tsentence", "0\tunlabelled", "1\ttoo"]),
        ):
            archive.writestr(zipfile.ZipInfo(f"SST-2/{name}.tsv"), "\n".join(lines) + "\n")
    return {"SST-2.zip": packed.getvalue()}, {"inputs": sentences, "labels": labels}


def fashion() -> tuple[dict[str, bytes], dict[str, Any]]:
    """Fifty images to train on, twenty to test on."""
    rng = np.random.default_rng(1)
    pixels, labels = rng.integers(0, 256, (70, 28, 28), np.uint8), np.arange(70, dtype=np.uint8) * 7 % 10
    files = {}
    for name, part in (("train", slice(0, 50)), ("t10k", slice(50, 70))):
        count = len(labels[part])
        images = struct.pack(">IIII", 2051, count, 28, 28) + pixels[part].tobytes()
        files[f"{name}-images-idx3-ubyte.gz"] = gzip.compress(images, mtime=0)
        files[f"{name}-labels-idx1-ubyte.gz"] = gzip.compress(struct.pack(">II", 2049, count) + labels[part].tobytes(), mtime=0)
    return files, {"inputs": pixels[..., None], "labels": labels}


MADE = {"cifar10": cache(cifar), "sst2": cache(sst2), "fashion_mnist": cache(fashion)}


def install(address: str = "") -> None:
    """Put the tiny archives into the catalogue, in place of the real ones; `address` replaces their hosts."""
    for name, counts in COUNTS.items():
        catalog.ENTRIES[name] = catalog.ENTRIES[name]._replace(examples=counts)
    real = catalog.archives

    def archives(entry: catalog.TfdsDataset) -> list[Archive]:
        files = MADE[entry.name]()[0]
        return [
            Archive(address + one.file if address else one.url, len(files[one.file]), hashlib.sha256(files[one.file]).hexdigest(), one.file)
            for one in real(entry)
        ]

    catalog.archives = archives  # type: ignore[assignment]


def bring(name: str, where: Path) -> None:
    """Put a data set's tiny archives into `downloads/manual/`."""
    manual = catalog.manual(where)
    manual.mkdir(parents=True, exist_ok=True)
    for file, body in MADE[name]()[0].items():
        (manual / file).write_bytes(body)

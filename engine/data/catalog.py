"""The data sets that tensorflow-datasets prepares: what they are, where they lie, and what to do where they are not there.

Nothing here imports tensorflow-datasets: a missing data set is reported before an engine is started. The addresses, sizes and
sums of the archives are read from that package's own registry.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import platformdirs
from msgspec.structs import replace

from engine.base import folders
from engine.base.errors import UserError
from engine.spec import Data, Network, Own, OwnOptimizer, RunSpec


class TfdsDataset(NamedTuple):
    """A data set of tensorflow-datasets."""

    name: str
    source: str
    """Its folder in the data folder: the builder, and the builder's configuration where it has one."""
    archives: tuple[str, ...]
    """File names of what is downloaded."""
    splits: tuple[str, str]
    """The splits that serve for training and for testing."""
    examples: tuple[int, int]
    """How many examples each has."""
    stand_in: str
    """The embedded data set of the same shape, as a specification says it."""


ENTRIES = {
    entry.name: entry
    for entry in (
        TfdsDataset(
            "fashion_mnist", "fashion_mnist",
            ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
            ("train", "test"), (60_000, 10_000), 'name = "fashion"',
        ),
        TfdsDataset(
            "cifar10", "cifar10", ("cifar-10-binary.tar.gz",), ("train", "test"), (50_000, 10_000),
            'name = "fashion", pad_to = 32, channels = 3',
        ),
        TfdsDataset("sst2", "glue/sst2", ("SST-2.zip",), ("train", "validation"), (67_349, 872), 'name = "sentences"'),
    )
}  # fmt: skip


class Archive(NamedTuple):
    """A file to download."""

    url: str
    bytes: int
    sha256: str
    file: str

    def __str__(self) -> str:
        return f"{self.file} ({self.bytes:,} bytes, SHA-256 {self.sha256})"


class DataUnavailable(UserError):
    """A data set that is not prepared and cannot be now; says the three next steps."""


def folder(chosen: str = "") -> Path:
    """The data folder, absolute: the one chosen, else `$TFDS_DATA_DIR`, else the platform's."""
    if chosen:
        return folders.absolute(chosen, "--data-dir")
    return folders.of("TFDS_DATA_DIR", platformdirs.user_data_dir, "eos-data")


def manual(where: Path) -> Path:
    """The folder for archives that were brought by hand."""
    return where / "downloads" / "manual"


def archives(entry: TfdsDataset) -> list[Archive]:
    """The archives of a data set, from the registry of tensorflow-datasets."""
    package = find_spec("tensorflow_datasets")
    if package is None or not package.submodule_search_locations:
        raise UserError(f"{entry.name}: tensorflow-datasets is not installed; pip install eos-tui brings it")
    registry = Path(package.submodule_search_locations[0]) / "url_checksums" / f"{entry.source.split('/')[0]}.txt"
    rows = [line.split("\t") for line in registry.read_text(encoding="utf-8").splitlines()]
    known = {row[3]: Archive(row[0], int(row[1]), row[2], row[3]) for row in rows if len(row) == 4}
    return [known[file] for file in entry.archives]


def is_prepared(entry: TfdsDataset, where: Path) -> bool:
    """Whether there is something to read. Cheap: whether it is whole shows when it is read."""
    return note_path(entry, where).is_file() or any((where / entry.source).glob("*/dataset_info.json"))


def is_begun(entry: TfdsDataset, where: Path) -> bool:
    """Whether there is anything of a data set, be it half of it."""
    return any((where / entry.source).glob("*")) or any((where / "eos").glob(f"{entry.name}.*"))


def note_path(entry: TfdsDataset, where: Path) -> Path:
    """The note beside the compact copy: its SHA-256 sum and where it comes from."""
    return where / "eos" / f"{entry.name}.json"


def unavailable(entry: TfdsDataset, where: Path, why: str) -> DataUnavailable:
    """The error for a data set that is not there."""
    files = ", ".join(map(str, archives(entry)))
    return DataUnavailable(
        f"{entry.name}: {why}. Either run `eos data prepare {entry.name} --data-dir DIR` where there is a network and copy DIR to "
        f"{where}; or put {files} into {manual(where)} and run `eos data prepare {entry.name} --data-dir {where}`; "
        f"or use the embedded stand-in: [problem.data] {entry.stand_in}"
    )


def ready(spec: RunSpec, data_dir: str = "") -> RunSpec:
    """The specification with its paths made absolute, so that an engine in another folder, or a resume, finds the same files.

    `data_dir` goes before the specification's own, where it needs one. Raises UserError when a file or data set is not there.
    """
    if isinstance(spec.optimizer, OwnOptimizer):
        where = str(folders.absolute(spec.optimizer.folder or ".", "[optimizer] folder"))
        spec = replace(spec, optimizer=replace(spec.optimizer, folder=where))
    if spec.metrics.functions:
        where = str(folders.absolute(spec.metrics.folder or ".", "[metrics] folder"))
        spec = replace(spec, metrics=replace(spec.metrics, folder=where))
    if isinstance(spec.problem, Network | Own) and spec.problem.start:
        spec = replace(spec, problem=replace(spec.problem, start=_start(spec.problem.start)))
    if isinstance(spec.problem, Own):
        return replace(spec, problem=replace(spec.problem, folder=str(folders.absolute(spec.problem.folder or ".", "[problem] folder"))))
    if not isinstance(spec.problem, Network):
        return spec
    data = spec.problem.data
    placed = replace(data, data_dir=_data_dir(data, data_dir), vocab_file=_vocab_file(data))
    return replace(spec, problem=replace(spec.problem, data=placed))


def _data_dir(part: Data, chosen: str) -> str:
    if part.name not in ENTRIES:
        return ""  # it ships with eos
    where = folder(chosen or part.data_dir)
    if not is_prepared(ENTRIES[part.name], where):
        raise unavailable(ENTRIES[part.name], where, f"not prepared in {where}")
    return str(where)


def _start(given: str) -> str:
    path = folders.absolute(given, "[problem] start")
    if not path.exists():
        raise UserError(f"[problem] start = {given!a}: no such file or folder; give one with the parameters to start from")
    return str(path)


def _vocab_file(part: Data) -> str:
    if not part.vocab_file:
        return ""
    path = folders.absolute(part.vocab_file, "[problem.data] vocab_file")
    if not path.is_file():
        raise UserError(f"[problem.data] vocab_file = {part.vocab_file!a}: no such file; give a WordPiece vocabulary, one piece a line")
    return str(path)

"""Everything that needs tensorflow-datasets, in one process of its own: its import takes seconds and its registry leaks.

`python tests/tfds_scenarios.py FOLDER` prints what happened as one JSON object, which test_tfds.py judges.
"""

import http.server
import json
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from engine.base.errors import UserError
from engine.data import catalog, compact, upstream
from engine.data import prepare as preparation

from tfds_archives import COUNTS, MADE, bring, install


def said(act: Callable[[], Any]) -> str:
    """What an act returned, or the error it ended in, in words."""
    try:
        return str(act())
    except UserError as error:
        return f"{type(error).__name__}: {error}"


def prepare(name: str, where: Path) -> str:
    return said(lambda: preparation.prepare(catalog.ENTRIES[name], where))


def verify(name: str, where: Path) -> str:
    return said(lambda: preparation.verify(catalog.ENTRIES[name], where))


def listing(where: Path) -> list[str]:
    return sorted(f"{path.relative_to(where)} {path.stat().st_mtime_ns}" for path in where.rglob("*"))


def same(pool: Any, name: str) -> bool:
    """Whether a pool is what the archives hold, in their order."""
    truth, cut = MADE[name]()[1], COUNTS[name][0]
    parts = (truth["inputs"][:cut], truth["labels"][:cut], truth["inputs"][cut:], truth["labels"][cut:])
    return all(np.array_equal(found, expected) for found, expected in zip(pool, parts, strict=True))


def by_hand(where: Path) -> dict[str, Any]:
    """Each data set from archives brought by hand; what plain tensorflow-datasets reads then; and the slow way to read."""
    import tensorflow_datasets as tfds

    found: dict[str, Any] = {}
    for name, entry in catalog.ENTRIES.items():
        bring(name, where)
        told = [prepare(name, where), prepare(name, where), verify(name, where)]
        before = listing(where)
        copy, records = compact.read(entry, where), upstream.read(entry, where)
        version = next((where / entry.source).glob("*/dataset_info.json")).parent
        plain = tfds.builder_from_directory(str(version)).as_data_source("train")
        found[name] = {
            "told": told, "copy": copy is not None and same(copy[0], name), "records": same(records[0], name),
            "origin": records[1], "version": version.name, "plain": len(plain), "keys": sorted(plain[0]),
            "no_writes": listing(where) == before, "labels": plain.dataset_info.features["label"].names,
        }  # fmt: skip
    copies = {name: compact.copy_path(entry, where) for name, entry in catalog.ENTRIES.items()}
    for name, path in copies.items():
        body = path.read_bytes()
        path.write_bytes(body[:-1] + bytes([body[-1] ^ 1]))
        found[name]["damaged"] = [verify(name, where), prepare(name, where), verify(name, where)]
    shard = next((where / "cifar10").glob("*/*train.array_record*"))
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    found["torn_records"] = verify("cifar10", where)
    next((where / "fashion_mnist").glob("*/dataset_info.json")).write_text("{")
    found["torn_info"] = verify("fashion_mnist", where)
    info = next((where / "glue" / "sst2").glob("*/dataset_info.json"))
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    found["tensorflow_only"] = verify("sst2", where)
    return found


def wrong_archive(where: Path) -> dict[str, Any]:
    """A file of the right name and other bytes; then a killed download's leavings."""
    bring("sst2", where)
    (catalog.manual(where) / "SST-2.zip").write_bytes(b"not a zip")
    told = prepare("sst2", where)
    left = [where / "downloads" / "glue" / "SST-2.zip.tmp.0123", where / "glue" / "sst2" / "incomplete.ABC_2.0.0"]
    for path in left:
        path.mkdir(parents=True)
        (path / "part").write_bytes(b"part")
    bring("sst2", where)
    return {"told": told, "then": prepare("sst2", where), "left": [str(path) for path in left if path.exists()]}


def over_the_network(where: Path) -> dict[str, Any]:
    """A server that serves the right archive, then the wrong one, and a host that accepts and says nothing."""
    served = dict(MADE["sst2"]()[0])

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200)
            self.end_headers()

        def do_GET(self) -> None:
            body = served[Path(self.path).name]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/"
    install(address)
    upstream.Glue.builder_configs["sst2"].data_url = address + "SST-2.zip"
    found: dict[str, Any] = {"right": prepare("sst2", where / "right"), "verified": verify("sst2", where / "right")}
    served["SST-2.zip"] = b"something else"
    found["wrong"] = prepare("sst2", where / "wrong")
    found["left"] = [path for path in listing(where / "wrong") if ".tmp." in path or "incomplete" in path]
    next((where / "right" / "glue" / "sst2").glob("*/dataset_info.json")).unlink()
    compact.note_path(catalog.ENTRIES["sst2"], where / "right").unlink()
    found["half"] = [prepare("sst2", where / "right"), verify("sst2", where / "right")]
    server.shutdown()
    server.server_close()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        install(f"http://127.0.0.1:{silent.getsockname()[1]}/")
        preparation.REACH_SECONDS = 0.5
        began = time.monotonic()
        found["silent"] = prepare("cifar10", where / "silent")
        found["seconds"] = time.monotonic() - began
    return found


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    install()
    results = {"by_hand": by_hand(folder / "hand"), "wrong_archive": wrong_archive(folder / "bad")}
    results["network"] = over_the_network(folder / "net")
    print(json.dumps(results))

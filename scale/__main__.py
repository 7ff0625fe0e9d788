"""Ray Data for batches, Milvus for vectors: what main.py does, past one machine.

python -m scale index SOURCE MILVUS                      embed images, and put them into Milvus
python -m scale caption SOURCE OUT --gallery MILVUS      caption images, into Parquet files
python -m scale search MILVUS "a dog" | --image p.jpg    find images
"""

import cli.interrupts  # noqa: F401 - before all others
import os
import sys
from argparse import Namespace
from typing import Any

import config
import demo
from caption_embedder import load_caption_embedder
from cli import output, process
from experiments.query import clean_query
from image_embedder import load_image_embedder
from scale import cluster, flags
from scale.captions import Output
from scale.gallery import Gallery
from scale.identity import Address
from scale.moving import is_databases, move_up
from scale.parts import find_parts
from scale.rows import open_rows, read_images
from scale.workers import Captioner, Indexer, Job
from support.errors import SettingError
from support.hub.names import configured_model
from support.hub.revisions import locate
from support.hub.token import use_huggingface_token
from support.log import log
from support.records import ModelRef
from support.server.captioner import served_model
from support.sources.own import own_sample
from support.text import first_few, printable


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns its exit status."""
    return process.run(dict.fromkeys(("index", "caption", "search"), _run), argv, flags.parse)


def _run(arguments: Namespace) -> int:
    """A command, once the packages that it needs are there."""
    cluster.check_packages()
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what it logs is raised too
    commands = {"index": _index, "caption": _caption, "search": _search}
    return commands[arguments.command](arguments)


def _index(arguments: Namespace) -> int:
    if is_databases(arguments.source):
        moved = move_up(arguments.source, _gallery(arguments), arguments.ann)
        print(f"Moved: {moved.images} images; {moved.without_vector} have no vector yet")
        return 0
    rows, gallery = _rows(arguments), _gallery(arguments)
    job = Job(gallery.address, None, cluster.new_attempts(), arguments.ann)
    known, errors = 0, []
    count = 0
    with cluster.errors_explained(job.attempts):
        for row in _mapped(rows, Indexer, job, arguments).iter_rows():
            count += 1
            known += row["known"]
            errors += [row["error"]] if row["error"] else []
    if errors:
        log.warning("%d images cannot be read and are left out: %s", len(errors), first_few(errors))
    failed = f"; {len(errors)} cannot be read" if errors else ""
    print(f"Indexed: {count - known - len(errors)} images; {known} were known{failed}")
    return 0


def _caption(arguments: Namespace) -> int:
    if is_databases(arguments.source):
        raise SettingError(f"'{arguments.source}' holds databases, no images: name the images.")
    out = Output(arguments.out, arguments.source)
    rows, gallery = _rows(arguments), _gallery(arguments)
    gallery.open()
    vlm = _model("vlm")
    out.claim(gallery.address, vlm)
    out.forget_errors()
    out.keep_checkpoints(rows)
    job = Job(gallery.address, vlm, cluster.new_attempts())
    with cluster.errors_explained(job.attempts):
        out.write(_mapped(rows, Captioner, job, arguments), arguments.batch)
    if arguments.add:
        out.add_to(gallery)
    count, errors = out.summary()
    print(printable(f"Captioned: {count - len(errors)} images of {count} in {arguments.out}"))
    failed = f"{len(errors)} images failed: {first_few(errors)}" if errors else ""
    return output.report_failures(printable(failed))


def _search(arguments: Namespace) -> int:
    sample = None if arguments.image is None else own_sample(arguments.image)
    query = "" if arguments.query is None else clean_query(arguments.query)
    gallery = _gallery(arguments)
    sizes = gallery.open()
    if sample is None:
        found = gallery.captioned(load_caption_embedder(gallery.address.text).embed_query(query))
    else:
        embedder = load_image_embedder(gallery.address.clip)
        vector = embedder.embed([sample.image_for(sizes.decoded_for)])
        (found,) = gallery.neighbors(vector, [sample.content_hash])
    images = [hit.neighbor.as_dict() for hit in found]
    output.print_found(query, images, arguments)
    return 0


def _gallery(arguments: Namespace) -> Gallery:
    """The gallery at the address given, connected to."""
    use_huggingface_token()
    return Gallery(Address(arguments.milvus, arguments.name, _model("clip"), _model("text")))


def _model(kind: str) -> ModelRef:
    """The model of a kind that config names, with its revision; never the demo's unasked.

    The VLM is that of config.VLM_SERVER, where it is set.
    """
    if kind == "vlm" and config.VLM_SERVER is not None:
        return served_model(config.VLM_SERVER)
    return locate((demo.model if config.MODE == "demo" else configured_model)(kind))


def _rows(arguments: Namespace) -> Any:
    """The rows of the source; Ray is started, once there are some."""
    parts = find_parts(arguments.source, arguments.batch)
    cluster.start()
    return open_rows(parts)


def _mapped(rows: Any, worker: type, job: Job, arguments: Namespace) -> Any:
    """What the workers make of `rows`."""
    options = cluster.worker_options(arguments.workers, arguments.gpus)
    read = rows.map_batches(read_images, batch_format="pyarrow", batch_size=None)
    batch: dict[str, Any] = {"batch_format": "pyarrow", "batch_size": arguments.batch}
    return read.map_batches(worker, fn_constructor_args=[job], **batch, **options)


if __name__ == "__main__":
    sys.exit(main())

"""The Parquet files of a captioning run: written with checkpoints, read back, put into Milvus."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock, Timeout

from scale.entries import Entry, number_of
from scale.gallery import Gallery
from scale.identity import Address
from scale.places import checked_place, file_system, is_below, is_uri
from support.errors import PipelineError, SettingError
from support.records import ModelRef
from support.settings import changed_settings
from support.text import first_few

AT_ONCE = 500
FINISHED = ".finished"  # the folder of Ray's checkpoints


class Summary(NamedTuple):
    """How many rows there are, and the errors among them."""

    rows: int
    errors: list[str]


class Output:
    """A folder of Parquet files, local or a URI; hidden in it, what has been finished.

    Raises SettingError for one that lies in the source, or can be no folder.
    """

    def __init__(self, folder: str, source: str):
        self._folder = checked_place(folder, "OUT")
        if is_below(self._folder, checked_place(source, "SOURCE")):
            raise SettingError(
                f"OUT, '{self._folder}', lies in SOURCE, '{source}': the next run would read it as "
                "a part of that. Name another folder."
            )
        try:
            self._system, self._inside = file_system(self._folder)
        except (OSError, ValueError) as error:
            raise SettingError(f"OUT, '{self._folder}', cannot be used: {error}.") from error

    def claim(self, gallery: Address, vlm: ModelRef) -> None:
        """Marks the folder as this run's, and locks it, where it is on this machine.

        Raises SettingError where it belongs to another run or holds other Parquet files;
        PipelineError where another program writes to it.
        """
        run = {
            **gallery.identity(),
            "vlm": [vlm.name, vlm.revision],
            "settings": changed_settings(),
        }
        path = f"{self._inside}/.run.json"
        try:
            self._system.create_dir(self._inside, recursive=True)
            self._lock()
            with self._system.open_input_stream(path) as file:
                before = json.loads(file.read())
        except FileNotFoundError:
            self._refuse_others()
            with self._system.open_output_stream(f"{path}.new") as file:
                file.write(json.dumps(run).encode())
            self._system.move(f"{path}.new", path)  # it is there whole, or not at all
            return
        except (OSError, ValueError) as error:
            raise SettingError(f"OUT, '{self._folder}', cannot be used: {error}.") from error
        if before != json.loads(json.dumps(run)):
            raise SettingError(
                f"'{self._folder}' holds captions made with {before}, now it is {run}. They are "
                "never mixed: name another folder."
            )

    def _lock(self) -> None:
        """Holds a lock until the program ends; at a URI there is none."""
        if is_uri(self._folder):
            return
        self._held = FileLock(Path(self._folder) / ".lock")
        try:
            self._held.acquire(timeout=0)
        except Timeout as error:
            raise PipelineError(
                f"Another program writes captions to {self._folder}. Wait for it, or name another "
                "folder."
            ) from error

    def _refuse_others(self) -> None:
        from pyarrow.fs import FileSelector

        files = self._system.get_file_info(FileSelector(self._inside))
        others = [info.base_name for info in files if info.base_name.endswith(".parquet")]
        if others:
            raise SettingError(
                f"OUT, '{self._folder}', holds Parquet files of something else: "
                f"{first_few(others)}. Name another folder."
            )

    def forget_errors(self) -> None:
        """Takes out the rows with an error, so that their images are tried again.

        First out of what is finished: where that is all that was done, the next run does the rest.
        """
        from pyarrow.compute import field

        failed = self._dataset().to_table(["id"], filter=field("error").is_valid())["id"]
        if len(failed):
            self._keep_rows(f"{self._inside}/{FINISHED}", ~field("id").isin(failed))
            self._keep_rows(self._inside, field("error").is_null())

    def _keep_rows(self, folder: str, kept: Any) -> None:
        """Leaves those rows in a folder's Parquet files for which the expression `kept` is true."""
        from pyarrow.dataset import dataset
        from pyarrow.fs import FileSelector
        from pyarrow.parquet import write_table

        for info in self._system.get_file_info(FileSelector(folder, allow_not_found=True)):
            if not info.base_name.endswith(".parquet"):
                continue
            rows = dataset(info.path, filesystem=self._system, format="parquet")
            left = rows.count_rows(filter=kept)
            if not left:
                self._system.delete_file(info.path)
            elif left < rows.count_rows():
                with self._system.open_output_stream(f"{folder}/.rewritten") as file:
                    write_table(rows.to_table(filter=kept), file)
                self._system.move(f"{folder}/.rewritten", info.path)

    def keep_checkpoints(self, rows: Any) -> None:
        """Lets Ray leave out those of `rows` that were finished before."""
        from ray.data.checkpoint import CheckpointConfig

        checkpoints = CheckpointConfig(
            id_column="id",
            checkpoint_path=f"{self._folder}/{FINISHED}",
            delete_checkpoint_on_success=False,
        )
        checkpoints.checkpoint_actor_pool_max_size = 1  # of the CPUs that are left for this
        rows.context.checkpoint_config = checkpoints

    def write(self, rows: Any, least: int) -> None:
        """Writes rows as they come, at least so many to a file."""
        rows.write_parquet(self._folder, min_rows_per_file=least)

    def summary(self) -> Summary:
        """What the folder holds now."""
        table = self._dataset().to_table(["error"])
        return Summary(len(table), [text for text in table["error"].to_pylist() if text])

    def add_to(self, gallery: Gallery) -> None:
        """Puts the captions into the gallery: when all are written, so that none is context."""
        columns = ["key", "path", "vector", "caption", "text_vector"]
        for batch in self._dataset().to_batches(columns=columns, batch_size=AT_ONCE):
            rows = [row for row in batch.to_pylist() if row["caption"] is not None]
            known = gallery.known([row["key"] for row in rows])
            entries: dict[str, Entry] = {}
            vectors: dict[str, np.ndarray] = {}
            for row in rows:
                vector = np.asarray(row["vector"], np.float32)
                new = Entry(row["key"], vector, row["path"], number_of(row["key"]))
                entries[new.key] = known.get(new.key, new)._replace(generated=row["caption"])
                vectors[row["caption"]] = np.asarray(row["text_vector"], np.float32)
            gallery.put(list(entries.values()), vectors)

    def _dataset(self) -> Any:
        from pyarrow.dataset import dataset

        where = {"filesystem": self._system, "format": "parquet"}
        return dataset(self._inside, schema=caption_schema(), **where)


def caption_schema() -> Any:
    """The columns of the Parquet files that captions are written to.

    The project's loader takes `image` and `caption` for a dataset's.
    """
    import pyarrow as pa

    text, vector = pa.string(), pa.list_(pa.float32())
    image = pa.struct([("bytes", pa.binary()), ("path", text)])
    numbers = [("key", text), ("index", pa.int64()), ("similarity", pa.float64())]
    neighbor = pa.struct([*numbers, ("caption", text), ("image", text)])
    columns = [("id", text), ("key", text), ("path", text), ("image", image), ("caption", text)]
    columns += [("vector", vector), ("text_vector", vector), ("neighbors", pa.list_(neighbor))]
    return pa.schema([*columns, ("prompt", text), ("error", text), ("models", text)])

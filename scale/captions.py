"""The Parquet files of a captioning run: written with checkpoints, read back, put into Milvus."""

import json
from typing import Any, NamedTuple

import numpy as np

from scale.entries import Entry, number_of
from scale.gallery import Gallery
from scale.identity import Address
from scale.rows import file_system, is_uri
from support.errors import SettingError
from support.paths import absolute_path
from support.records import ModelRef
from support.settings import changed_settings

AT_ONCE = 500


class Summary(NamedTuple):
    """How many rows there are, and the errors among them."""

    rows: int
    errors: list[str]


class Output:
    """A folder of Parquet files, local or a URI; hidden in it, what has been finished."""

    def __init__(self, folder: str):
        self._folder = folder if is_uri(folder) else absolute_path(folder)
        self._system, self._inside = file_system(self._folder)

    def claim(self, gallery: Address, vlm: ModelRef) -> None:
        """Marks the folder as this run's. Raises SettingError where it belongs to another."""
        run = {
            **gallery.identity(),
            "vlm": [vlm.name, vlm.revision],
            "settings": changed_settings(),
        }
        path = f"{self._inside}/.run.json"
        try:
            self._system.create_dir(self._inside, recursive=True)
            with self._system.open_input_stream(path) as file:
                before = json.loads(file.read())
        except FileNotFoundError:
            with self._system.open_output_stream(path) as file:
                file.write(json.dumps(run).encode())
            return
        except (OSError, ValueError) as error:
            raise SettingError(f"OUT, '{self._folder}', cannot be used: {error}.") from error
        if before != json.loads(json.dumps(run)):
            raise SettingError(
                f"'{self._folder}' holds captions made with {before}, now it is {run}. They are "
                "never mixed: name another folder."
            )

    def keep_checkpoints(self, rows: Any) -> None:
        """Lets Ray leave out those of `rows` that were finished before."""
        from ray.data.checkpoint import CheckpointConfig

        checkpoints = CheckpointConfig(
            id_column="id",
            checkpoint_path=f"{self._folder}/.finished",
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

        return dataset(self._inside, filesystem=self._system, format="parquet")

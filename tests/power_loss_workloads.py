"""What tests/power_loss.py records, and what must be true after a power failure.

`python -m tests.power_loss_workloads NAME FOLDER` runs one of them.
"""

import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import config
from db_manager import DatabaseManager
from support.errors import DatabaseError
from support.records import ModelRef
from support.storage.files import publish_file, replace_file
from support.storage.vectors import VectorTable
from tests import power_loss
from tests.attacks import (
    CLIP,
    DIMENSION,
    NEW_CLIP,
    Faults,
    add,
    caption,
    exit_status,
    forked,
    sample,
    state,
    update_databases,
    vector,
)
from tests.power_loss import report

LATER = 900  # an image captioned after the power failure
GALLERY = range(100, 150)  # images whose vectors make an update of several pages
SALVAGED = (0, 2, 3, 5)  # of six images before a rebuild; the records of 1 and 4 are damaged
TEXTS = [f"{n} 개\n" * 3000 for n in range(5)]  # files of several pages
KEYS = {n: sample(n).content_hash for n in range(1000)}


class Workload(NamedTuple):
    """A program, what must be true of the states it leaves, and what is durable beforehand.

    `check` gets a state's folder and what was reported as done, and says what is wrong.
    """

    run: Callable[[Path], None]
    check: Callable[[Path, list[str]], str | None]
    prepare: Callable[[Path], None] = lambda folder: (folder / "db").mkdir()


def images_of(db: DatabaseManager, model: ModelRef = CLIP) -> VectorTable:
    return db.image_vectors(model, DIMENSION, "pil")


# --- Updates --------------------------------------------------------------------------------------
def update(folder: Path, name: str = "db", count: int = 2) -> None:
    update_databases(folder / name, lambda n: report(str(n)), count)


def leave_half_line(folder: Path) -> None:
    """A journal as a power failure leaves it."""
    fill_journal(folder, [])
    with (folder / "db" / "journal.jsonl").open("ab") as file:
        file.write(b'{"crc32":"00000000","updates":{"' + 5000 * b"x")


def update_many(folder: Path) -> None:
    """Updates of several pages, as large galleries need them."""
    with DatabaseManager(folder / "db", "photos") as db:
        db.sync_gallery([sample(n, captions=(caption(n),)) for n in GALLERY])
        db.add_vectors(images_of(db), {KEYS[n]: vector(n) for n in GALLERY})
        add(db, 0)
        report("0")


def check_updates(folder: Path, done: list[str], name: str = "db") -> str | None:
    """What was reported is there, nothing is there in part, and the next update works."""
    if wrong := _wrong(folder / name, [int(n) for n in done]):
        return wrong
    with DatabaseManager(folder / name, "photos") as db:
        add(db, LATER)
    return _wrong(folder / name, [*map(int, done), LATER])


def _wrong(path: Path, done: Iterable[int]) -> str | None:
    found = state(path)
    captioned = {key for key, record in found["captions"].items() if record["generated"]}
    earlier = [n for n, key in KEYS.items() if key in captioned and n != LATER]
    if earlier != [*range(len(earlier))]:
        return f"not in the order of the updates: {earlier}"
    if half := captioned - set(found["images"]):
        return f"captions without a vector: {half}"
    if earlier and not {KEYS[n] for n in GALLERY[:3]} <= set(found["images"]):
        return "vectors of the gallery are lost"
    texts = {caption(n) for n in done}
    if lost := texts - set(found["texts"]):
        return f"vectors of texts are lost: {lost}"
    return _lost(found["captions"], done)


def _lost(captions: dict[str, Any], numbers: Iterable[int]) -> str | None:
    texts = {key: (r["generated"] or {}).get("caption") for key, r in captions.items()}
    lost = [n for n in numbers if texts.get(KEYS[n]) != caption(n)]
    indices = [record["index"] for record in captions.values()]
    if len(set(indices)) < len(indices):
        return f"two images share a number: {sorted(indices)}"
    return f"captions are lost: {lost}" if lost else None


# --- Rebuilding -----------------------------------------------------------------------------------
def damage(folder: Path) -> None:
    """Six images, half of them in the journal; a record of each half is damaged."""
    with DatabaseManager(folder / "db", "photos") as db:
        for n in range(3):
            add(db, n)
    fill_journal(folder, range(3, 6))
    (folder / "damaged").mkdir()
    for name, n in (("captions.json", 1), ("journal.jsonl", 4)):
        path = folder / "db" / name
        path.write_bytes(path.read_bytes().replace(caption(n).encode(), b'"', 1))
        (folder / "damaged" / name).write_bytes(path.read_bytes())


def fill_journal(folder: Path, numbers: Iterable[int]) -> None:
    """Captions and vectors that are in no document yet."""
    db = DatabaseManager(folder / "db", "photos")
    for n in numbers:
        add(db, n)
    db.close(compact=False)


def rebuild(folder: Path) -> None:
    with DatabaseManager(folder / "db", "photos", rebuild=True) as db:
        report("salvaged")
        db.add_vectors(images_of(db), {KEYS[n]: vector(n) for n in SALVAGED})
        report("embedded")


def check_rebuild(folder: Path, done: list[str]) -> str | None:
    """All that could be salvaged, and copies of what was damaged, are there; it can go on."""
    for file in (folder / "damaged").iterdir():
        copies = (folder / "db").glob(f"{file.name}*")
        if file.read_bytes() not in [copy.read_bytes() for copy in copies]:
            return f"the damaged {file.name} is lost"
    with DatabaseManager(folder / "db", "photos", rebuild=not done) as db:
        if wrong := _lost(db.captions, SALVAGED):
            return wrong
        if "embedded" in done and not {KEYS[n] for n in SALVAGED} <= set(images_of(db).rows):
            return "vectors are lost"
        add(db, LATER)
    return _lost(DatabaseManager(folder / "db", "photos").captions, [*SALVAGED, LATER])


def renew(folder: Path) -> None:
    """Another version of the model; the old vectors are still in the journal."""
    with DatabaseManager(folder / "db", "photos", rebuild=True) as db:
        db.add_vectors(images_of(db, NEW_CLIP), {KEYS[7]: vector(7)})
        report("renewed")


def check_renewed(folder: Path, done: list[str]) -> str | None:
    """Vectors of two versions are never mixed."""
    try:
        db = DatabaseManager(folder / "db", "photos")
        rows = set(images_of(db, NEW_CLIP).rows)
    except DatabaseError as error:
        if done or "does not fit" not in str(error):
            raise
        db = DatabaseManager(folder / "db", "photos", rebuild=True)
        rows = set(images_of(db, NEW_CLIP).rows)
    if rows - {KEYS[7]}:
        return f"vectors of two versions are mixed: {rows}"
    db.add_vectors(images_of(db, NEW_CLIP), {KEYS[LATER]: vector(LATER)})
    db.close()
    db = DatabaseManager(folder / "db", "photos")
    found = set(images_of(db, NEW_CLIP).rows)
    expected = {KEYS[LATER]} | ({KEYS[7]} if done else rows)
    return _lost(db.captions, range(3)) or (None if found == expected else f"found {found}")


# --- Other files ----------------------------------------------------------------------------------
def publish(folder: Path) -> None:
    for n in range(3):
        report(f"{publish_file(folder / 'results', 'image', '.json', TEXTS[n]).name} {n}")
    for n in (3, 4):
        replace_file(folder / "results" / "table.md", [TEXTS[n]])
        report(f"table.md {n}")


def check_published(folder: Path, done: list[str]) -> str | None:
    """What was reported is there; whatever has its final name is whole."""
    results = folder / "results"
    paths = [path for path in results.glob("*") if not path.name.startswith(".")]
    found = {path.name: path.read_text("utf-8") for path in paths}
    for name, text in found.items():
        if text not in TEXTS:
            return f"{name} is there in part: {len(text)} characters"
    for name, n in dict(line.split() for line in done).items():
        if name not in found or TEXTS.index(found[name]) < int(n):
            return f"{name} is lost"
    later = publish_file(results, "image", ".json", "later")
    return None if later.name not in found else f"{later.name} was replaced"


def evaluate(folder: Path) -> None:
    for n in range(3):
        progress_in(folder).add(rows_of(n))
        report(str(n))


def check_evaluation(folder: Path, done: list[str]) -> str | None:
    """Every batch that was reported is there, no row in part, and another one can be added."""
    progress = progress_in(folder)
    written = {(row["arm"], row["content_hash"]): row for n in range(3) for row in rows_of(n)}
    if not progress.done.items() <= written.items():
        return "a row is there that was not written"
    progress.add(rows_of(3))
    found = progress_in(folder).done
    for n in [*map(int, done), 3]:
        if any(found.get((row["arm"], row["content_hash"])) != row for row in rows_of(n)):
            return f"batch {n} is lost"
    return None


def progress_in(folder: Path) -> Any:
    from experiments.progress import Progress

    config.RESULTS_DIR = str(folder / "results")
    return Progress("new", "old")


def rows_of(batch: int) -> list[Any]:
    texts = {"caption": caption(batch) * 20, "prompt": None}
    return [{"arm": "none", "content_hash": f"{batch}-{n}", **texts} for n in range(20)]


# --- All of them ----------------------------------------------------------------------------------
def nothing(folder: Path) -> None:
    pass


def after_kill(run: Callable[[Path], None], steps: tuple[str, ...], at: int, folder: Path) -> None:
    """`run`, after a process that was killed in it, before it could sync what it had done."""

    def killed() -> None:
        Faults(at, "after", steps).install()
        run(folder)

    exit_status(forked(killed))
    run(folder)


NEW_FOLDER = "new/databases/db"
NEW = Workload(
    partial(update, name=NEW_FOLDER, count=1), partial(check_updates, name=NEW_FOLDER), nothing
)
RESULTS = Workload(publish, check_published, nothing)
EVALUATION = Workload(evaluate, check_evaluation, nothing)
WORKLOADS = {
    "updates": Workload(update, check_updates),
    "more updates": Workload(partial(update, count=8), check_updates),
    "updates of many images": Workload(update_many, check_updates),
    "updates after half a line": Workload(update_many, check_updates, leave_half_line),
    "rebuild": Workload(rebuild, check_rebuild, damage),
    "new model version": Workload(renew, check_renewed, partial(fill_journal, numbers=range(3))),
    "new folders": NEW,
    "results": RESULTS,
    "evaluation": EVALUATION,
}
RENAMES = ("mkdir", "link", "replace")
KILLS = (  # workload, steps that count, after which of them a first process is killed
    ("new folders", RENAMES, range(26)),
    ("results", RENAMES, (0, 1, 3, 7)),  # the others fail, for names that are taken
    ("evaluation", ("mkdir", "fsync"), range(3)),
)
for name, steps, kills in KILLS:
    for at in kills:
        again = WORKLOADS[name]._replace(run=partial(after_kill, WORKLOADS[name].run, steps, at))
        WORKLOADS[f"{name} after kill {at}"] = again


def checked(name: str, folder: Path, done: list[str]) -> str | None:
    """What a workload's check says of a state; an exception is a problem, whatever its kind."""
    try:
        return WORKLOADS[name].check(folder, done)
    except Exception as error:  # noqa: BLE001 - reported with the state that raises it
        return f"{type(error).__name__}: {error}"


def lose_power(name: str, folder: Path, every_note: bool = False) -> power_loss.Outcome:
    """Records a workload, and checks each state that a power failure may leave."""
    arguments = ["tests.power_loss_workloads", name]
    return power_loss.lose_power(arguments, folder, partial(checked, name), every_note)


def main(name: str, folder: Path) -> None:
    WORKLOADS[name].prepare(folder)
    report(power_loss.START)
    WORKLOADS[name].run(folder)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

"""With any name of images, datasets and models, files appear in RESULTS_DIR and DB_DIR alone."""

import os

import pytest

from db_manager import DatabaseManager, database_folder
from experiments import results
from support.records import GeneratedCaption, ModelRef, Sample
from tests import attacks

NAMES = [
    "../../outside", "/etc/cron.d/job", "..", ".", "", "~", "~root", "a/../../b", "C:\\Windows\\x",
    "con", "a\nb", "%2e%2e%2f", "captions.json", "journal.jsonl", "lock", "lock-holder.json",
    "개 사진", "🐕", "x" * 5000, "개" * 300, "-rf", "$(reboot)", "\ud800", "frozen_pools", "a//b",
    "./a", "a/.", "\u202e", ".hidden", "a\0b",
]  # fmt: skip


def everything_below(folder) -> set:
    return set(folder.rglob("*"))


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_no_name_leads_out_of_its_folder(settings, tmp_path, name, monkeypatch):
    home = tmp_path / "elsewhere"
    home.mkdir()
    monkeypatch.chdir(home)
    folder = database_folder(name)
    assert (
        folder.parent == tmp_path / "databases"
        and folder.resolve().parent == (tmp_path / "databases").resolve()
    )
    with DatabaseManager(folder, name) as db:
        images = db.image_vectors(ModelRef(name, name, "r"), attacks.DIMENSION, "pil")
        own = Sample("a" * 64, name, None)
        db.add_generated(
            own, GeneratedCaption(name, name, {"dataset": name}), images, attacks.vector(1)
        )
        other = db.caption_vectors(ModelRef(name + "x", name, "r"), attacks.DIMENSION)
        db.add_vectors(other, {name: attacks.vector(2)})
    assert len(DatabaseManager(folder, name).captions) == 1
    for sample in (own, Sample("b" * 64, name, None, role="experiment", role_index=0)):
        results.save_results([{"metadata": {"image": name}}], [sample])
    assert everything_below(home) == set()
    assert {path.name for path in tmp_path.iterdir()} == {"databases", "results", "elsewhere"}
    assert all(
        path.is_file() and len(os.fsencode(path.name)) < 256
        for path in (tmp_path / "results").iterdir()
    )
    assert len(list((tmp_path / "results").glob("*.json"))) == 2


def test_a_journal_that_names_files_elsewhere_is_refused(tmp_path):
    from support.errors import DatabaseError
    from support.storage.journal import Journal

    attacks.update_databases(tmp_path / "db")
    journal = Journal(tmp_path / "db" / "journal.jsonl")
    elsewhere = ("../captions.json", "/tmp/x.json", "a/b/c.json", "..", "a/../../x.json")
    for name in (*elsewhere, ".hidden", "a\0.json"):
        before = journal.path.read_bytes()
        journal.append({name: {"x": "y"}}, journal.read()[1])
        with pytest.raises(DatabaseError, match=r"journal\.jsonl is damaged: line \d+"):
            DatabaseManager(tmp_path / "db", "photos")
        journal.path.write_bytes(before)

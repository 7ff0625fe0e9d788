"""A new version of the demo: its own databases follow, a user's never change unasked."""

from pathlib import Path

import pytest

import demo
from main import initialize_system, run_experiment, search_images
from support.errors import DatabaseError


@pytest.fixture
def small_demo(settings):
    """The demo's models on 12 of its scenes."""
    settings.MODE, settings.TOTAL_SAMPLES = "demo", 12
    return settings


def pull_another_version(settings) -> list[Path]:
    """Makes the vectors look as if an earlier version of the demo had made them."""
    paths = sorted(Path(settings.DB_DIR).glob("*/*/*_embeddings.json"))
    for path in paths:
        text = path.read_text("utf-8")
        assert '"revision": "files-' in text
        path.write_text(text.replace('"revision": "files-', '"revision": "files-0', 1), "utf-8")
    return paths


def test_the_demos_own_databases_are_made_anew_with_a_notice(small_demo, caplog):
    system = initialize_system()
    before = run_experiment(*system, 0)
    search_images("a red dog", *system)
    system[1].close()
    paths = pull_another_version(small_demo)
    assert len(paths) == 2
    system = initialize_system()
    after = run_experiment(*system, 0)
    assert after["similar_images"][:3] == before["similar_images"][:3]
    assert after["experiment_info"]["new_db_index"] == before["experiment_info"]["new_db_index"]
    assert search_images("a red dog", *system)
    system[1].close()
    for path in paths:
        assert f"{path} is of another version of its model: computed anew." in caplog.text
        assert '"revision": "files-0' not in path.read_text("utf-8")


def test_a_users_databases_are_refused_instead(small_demo, photos):
    small_demo.DATASET_NAME = str(photos)
    system = initialize_system()
    run_experiment(*system, 0)
    system[1].close()
    before = {path: path.read_bytes() for path in pull_another_version(small_demo)}
    with pytest.raises(DatabaseError, match="does not fit: its revision .*--rebuild"):
        initialize_system()
    assert {path: path.read_bytes() for path in before} == before
    assert demo.EMBEDDED.label not in {p.parent.parent.name for p in before}

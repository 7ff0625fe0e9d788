"""The demo's folders: made whole at first use, mended when damaged, by whoever may write where."""

import ctypes
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import demo
from demo.cache import ensure_filled
from demo.manifest import MANIFEST, find_damage
from support.errors import PipelineError
from tests.helpers import ROOT, run_python
from tests.test_attack_disk import small_disk  # noqa: F401 - a fixture

pytestmark = pytest.mark.skipif(os.name != "posix", reason="users, signals and limits of POSIX")
CONTENT = {"a.txt": b"first", "b/c.bin": bytes(range(256)) * 40, "empty": b""}


def fill(folder: Path) -> None:
    for name, content in CONTENT.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)


def content_of(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- Damage ---------------------------------------------------------------------------------------
def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def fill_with_zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def change_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def replace_by_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("name", ["b/c.bin", MANIFEST])
@pytest.mark.parametrize(
    "damage", [Path.unlink, cut, fill_with_zeros, change_a_byte, replace_by_a_folder]
)
def test_damage_is_found_named_once_and_mended(tmp_path, caplog, name, damage):
    folder = ensure_filled("x", [tmp_path], fill)
    assert content_of(folder) == CONTENT and not caplog.messages
    damage(folder / name)
    assert ensure_filled("x", [tmp_path], fill) == folder
    assert content_of(folder) == CONTENT and names_in(tmp_path) == ["lock", "x"]
    (notice,) = caplog.messages
    assert notice.startswith(f"{folder} is damaged: ") and notice.endswith("It is made anew.")
    ensure_filled("x", [tmp_path], fill)
    assert len(caplog.messages) == 1


def test_an_undamaged_folder_stays_as_it_is_with_what_was_added(tmp_path):
    folder = ensure_filled("x", [tmp_path], fill)
    (folder / ".DS_Store").write_bytes(b"added")
    before = folder.stat().st_ino
    assert ensure_filled("x", [tmp_path], fill) == folder and folder.stat().st_ino == before


def test_a_file_or_a_dangling_link_in_the_place_of_the_folder_is_replaced(tmp_path):
    (tmp_path / "x").write_bytes(b"")
    (tmp_path / "y").symlink_to(tmp_path / "nowhere")
    assert content_of(ensure_filled("x", [tmp_path], fill)) == CONTENT
    assert content_of(ensure_filled("y", [tmp_path], fill)) == CONTENT


@pytest.fixture
def demo_cache(tmp_path, monkeypatch):
    """An empty cache of the demo, with three scenes."""
    monkeypatch.setattr(demo, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(demo, "SCENES", 3)
    demo.text_model_folder.cache_clear()
    yield tmp_path / "cache"
    demo.text_model_folder.cache_clear()


def test_damaged_scenes_are_drawn_again(demo_cache, caplog):
    before = content_of(demo.prepare_scenes())
    assert sorted(before) == ["0000.jpg", "0001.jpg", "0002.jpg", "captions.txt"]
    for name in ("captions.txt", "0001.jpg"):
        for damage in (Path.unlink, cut):
            damage(demo.scenes_folder() / name)
            assert content_of(demo.prepare_scenes()) == before
    assert len(caplog.messages) == 4


def test_a_damaged_text_model_is_assembled_again(demo_cache, caplog):
    before = content_of(demo.text_model_folder())
    for name, damage in (("modules.json", Path.unlink), ("model.safetensors", cut)):
        damage(demo.text_model_folder() / name)
        demo.text_model_folder.cache_clear()  # as another process
        assert content_of(demo.text_model_folder()) == before
    assert len(caplog.messages) == 2


def test_scenes_of_an_earlier_version_are_drawn_anew_once(demo_cache, caplog):
    folder = demo_cache / demo.SCENES_NAME
    folder.mkdir(parents=True)
    (folder / "captions.txt").write_text("image,caption\n")
    assert len(content_of(demo.prepare_scenes())) == len(content_of(demo.prepare_scenes())) == 4
    (notice,) = caplog.messages
    assert f"{MANIFEST} is missing" in notice


@pytest.mark.long
def test_the_command_mends_a_damaged_demo(tmp_path):
    project = tmp_path / "project"
    shutil.copytree(ROOT, project, ignore=shutil.ignore_patterns(".*", "results", "tests"))
    for folder in (demo.prepare_scenes(), demo.text_model_folder()):
        shutil.copytree(folder, project / "demo" / ".cache" / folder.name)
    (project / "demo" / ".cache" / demo.SCENES_NAME / "captions.txt").unlink()
    cut(project / "demo" / ".cache" / demo.text_model_folder().name / "model.safetensors")
    done = run_python("main.py", "--mode", "demo", cwd=project)
    assert done.returncode == 0 and "Caption:" in done.stdout, done.stderr
    assert done.stderr.count("is damaged") == 2
    again = run_python("main.py", "--mode", "demo", cwd=project)
    assert again.returncode == 0 and "damaged" not in again.stderr


# --- Processes ------------------------------------------------------------------------------------
MAKE = """
import os, pathlib, signal, sys
from demo.cache import ensure_filled
folder, name, action = sys.argv[1:]
def fill(target):
    print("filling", flush=True)
    (target / "a.txt").write_text("half")
    if action == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    sys.stdin.readline()
    (target / "b.txt").write_text("whole")
print(sorted(path.name for path in ensure_filled(name, [pathlib.Path(folder)], fill).iterdir()))
"""


def start_making(folder: Path, name: str) -> subprocess.Popen:
    """Start a process that makes the folder `name` once it gets a line."""
    return subprocess.Popen(
        [sys.executable, "-c", MAKE, str(folder), name, ""],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_what_a_killed_process_left_is_removed(tmp_path):
    killed = run_python("-c", MAKE, str(tmp_path), "x", "die")
    assert killed.returncode == -signal.SIGKILL and len(names_in(tmp_path)) == 2
    assert content_of(ensure_filled("x", [tmp_path], fill)) == CONTENT
    assert names_in(tmp_path) == ["lock", "x"]
    killed = run_python("-c", MAKE, str(tmp_path), "y", "die")
    assert killed.returncode == -signal.SIGKILL and len(names_in(tmp_path)) == 3
    ensure_filled("x", [tmp_path], fill)  # finds it undamaged, and the leftover beside it
    assert names_in(tmp_path) == ["lock", "x"]


def test_what_a_process_is_working_on_is_not_removed(tmp_path):
    ensure_filled("x", [tmp_path], fill)
    with start_making(tmp_path, "y") as process:
        assert process.stdout.readline() == "filling\n"
        ensure_filled("x", [tmp_path], fill)
        out, _ = process.communicate("go\n", timeout=60)
    assert process.returncode == 0 and "'b.txt'" in out
    assert names_in(tmp_path) == ["lock", "x", "y"]


def test_work_of_an_earlier_version_which_took_no_lock_is_removed_when_it_is_old(tmp_path):
    young, old, other = "text-0123456789ab-a_cdefg1", "scenes-2-abcdefgh", "scenes-1-2-0123456789"
    for name in (young, old, other):
        (tmp_path / name).mkdir()
    for name in (old, other):
        os.utime(tmp_path / name, (0, time.time() - 2 * 24 * 3600))
    ensure_filled("x", [tmp_path], fill)
    assert names_in(tmp_path) == ["lock", other, young, "x"]


def test_of_several_processes_one_makes_the_folder_and_the_others_wait(tmp_path):
    (tmp_path / "x").mkdir()  # damaged: without a manifest
    processes = [start_making(tmp_path, "x") for _ in range(5)]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    outs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 5
    assert sum("filling" in out for out in outs) == 1
    assert all(f"['{MANIFEST}', 'a.txt', 'b.txt']" in out for out in outs)
    assert names_in(tmp_path) == ["lock", "x"]


def test_waiting_for_a_process_that_hangs_ends_with_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("demo.cache.LOCK_SECONDS", 0.2)
    with start_making(tmp_path, "x") as process:
        assert process.stdout.readline() == "filling\n"
        with pytest.raises(PipelineError, match=r"Another process is making .*x; waited 0.2 s"):
            ensure_filled("x", [tmp_path], fill)
        process.communicate("go\n", timeout=60)


# --- Disks ----------------------------------------------------------------------------------------
def test_a_full_disk_is_one_error_and_leaves_nothing_half_made(small_disk):  # noqa: F811
    ensure_filled("x", [small_disk], fill)
    cut(small_disk / "x" / "b/c.bin")
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(os.statvfs(small_disk).f_bavail * 4096))
    with pytest.raises(PipelineError, match=r"x cannot be made: No space.*Free some space"):
        ensure_filled("x", [small_disk], fill)
    assert names_in(small_disk) == ["ballast", "lock", "x"]
    ballast.unlink()
    assert content_of(ensure_filled("x", [small_disk], fill)) == CONTENT


@pytest.mark.parametrize("make", [demo.prepare_scenes, demo.text_model_folder])
def test_no_room_for_the_demo_is_one_error(demo_cache, make):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(PipelineError, match=r"cannot be made: File too large.*130 MB"):
            make()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names_in(demo_cache) == ["lock"]


# --- An ordinary user -----------------------------------------------------------------------------
PREPARE = """
import demo
demo.SCENES = 3
folder = demo.prepare_scenes()
assert folder == demo.scenes_folder() == demo.EMBEDDED.folder(), demo.scenes_folder()
print(folder)
"""


def obey_permissions() -> None:
    """Give up what lets root ignore permissions: in this process, once it runs another program."""
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


def run_as_user(project: Path, script: str) -> subprocess.CompletedProcess:
    """Run Python in `project`, bound by permissions, with a home folder beside it."""
    return subprocess.run(
        [sys.executable, "-B", "-c", script],
        cwd=project,
        env={"HOME": str(project.parent / "home"), "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=obey_permissions if os.geteuid() == 0 else None,
    )


@pytest.fixture
def project(tmp_path):
    """A copy of the demo's code where nothing may be written, with a home folder beside it."""
    folder = tmp_path / "project"
    for package in ("demo", "support"):
        ignored = shutil.ignore_patterns("__pycache__", ".cache", "models")
        shutil.copytree(ROOT / package, folder / package, ignore=ignored)
    shutil.copy(ROOT / "config.py", folder)
    (tmp_path / "home").mkdir()
    (folder / "demo").chmod(0o555)
    if run_as_user(folder, "open('demo/new', 'w')").returncode == 0:
        pytest.skip("permissions do not bind this user")
    yield folder
    for path in (*tmp_path.rglob("*"), tmp_path):  # for pytest, which removes it
        if path.is_dir():
            path.chmod(0o755)


def test_in_a_read_only_project_the_users_cache_is_used(project):
    done = run_as_user(project, PREPARE)
    folder = Path(done.stdout.strip())
    assert done.returncode == 0 and folder.is_relative_to(project.parent / "home"), done.stderr
    assert folder.name == demo.SCENES_NAME and len(content_of(folder)) == 4
    *_, notice = done.stderr.splitlines()
    assert notice.startswith(f"{project / 'demo' / '.cache'} (Permission denied) cannot be written")
    assert done.stderr.count("Permission denied") == 1
    cut(folder / "captions.txt")
    assert "is damaged: captions.txt has" in run_as_user(project, PREPARE).stderr
    again = run_as_user(project, PREPARE)
    assert (again.returncode, again.stdout, again.stderr) == (0, done.stdout, "")


def test_an_undamaged_cache_in_a_read_only_project_is_used(project):
    (project / "demo").chmod(0o755)
    made = run_as_user(project, PREPARE)
    folder = Path(made.stdout.strip())
    assert folder == project / "demo" / ".cache" / demo.SCENES_NAME, made.stderr
    leftover = folder.parent / ".scenes-2-abcdefgh.tmp"
    leftover.mkdir()
    folder.parent.chmod(0o555)
    done = run_as_user(project, PREPARE)
    assert (done.returncode, done.stdout, done.stderr) == (0, made.stdout, "")
    assert leftover.exists() and names_in(project.parent / "home") == []


def test_a_damaged_cache_in_a_read_only_project_is_replaced_by_the_users(project):
    folder = project / "demo" / ".cache" / demo.SCENES_NAME
    (project / "demo").chmod(0o755)
    folder.mkdir(parents=True)
    (folder / "captions.txt").write_text("image,caption\n")
    folder.parent.chmod(0o555)
    done = run_as_user(project, PREPARE)
    assert Path(done.stdout.strip()).is_relative_to(project.parent / "home"), done.stderr
    assert names_in(folder) == ["captions.txt"]


def test_where_nothing_can_be_written_one_error_names_the_folders_and_the_remedy(project):
    home = project.parent / "home"
    home.chmod(0o555)
    done = run_as_user(project, PREPARE)
    *_, error = done.stderr.splitlines()
    assert done.returncode == 1 and not done.stdout
    assert error.startswith("support.errors.PipelineError: The demo's folder scenes-2 ")
    for words in (str(project / "demo" / ".cache"), str(home), "permissions", "XDG_CACHE_HOME"):
        assert words in error
    assert error.count("(Permission denied)") == 2


def test_a_file_in_the_place_of_the_cache_leaves_the_users_cache(tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("mine")
    made = ensure_filled("x", [tmp_path / "cache", tmp_path / "users"], fill)
    assert made == tmp_path / "users" / "x" and content_of(made) == CONTENT
    assert (tmp_path / "cache").read_text() == "mine"


def test_a_manifest_that_cannot_be_parsed_or_read_is_damage(tmp_path):
    for content in ("[" * 100_000, '{"files": 3}', ""):
        (tmp_path / MANIFEST).write_text(content)
        assert "cannot be parsed" in find_damage(tmp_path)

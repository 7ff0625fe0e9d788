"""The commands and code blocks of the README and the notebook run, on the demo, in a copy."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import demo
from tests.helpers import ROOT, make_photos, picture, run_python

README = (ROOT / "README.md").read_text(encoding="utf-8")
NOT_HERE = ("pip install", "pytest")  # CI runs these two lines themselves


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    lines = [
        line.split("  #")[0].strip() for block in blocks("bash") for line in block.splitlines()
    ]
    return [line for line in lines if line and not any(words in line for words in NOT_HERE)]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project with the folders that the README's examples name."""
    folder = tmp_path_factory.mktemp("project")
    files = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in files.stdout.splitlines():
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    scenes = demo.prepare_scenes()
    shutil.copytree(scenes, folder / "demo" / ".cache" / scenes.name)
    (folder / "my_photos").mkdir()
    for number, name in enumerate(("a.jpg", "b.jpg", "c.png")):
        picture(number).save(folder / "my_photos" / name)
    make_photos(folder / "my_captioned_photos", 30)
    return folder


def run(project: Path, *arguments: str) -> subprocess.CompletedProcess:
    done = run_python(*arguments, cwd=project, timeout=900)  # a hang, not a slow machine
    assert done.returncode == 0, f"{arguments}\n{done.stderr}"
    return done


@pytest.mark.long
@pytest.mark.parametrize("line", commands())
def test_the_commands_of_the_readme_run(project, line):
    words = shlex.split(line)
    assert words[0] == "python"
    own = any(word in line for word in ("my_photos", "my_captioned_photos"))
    # the real models are not to be had here
    done = run(project, *words[1:], *(["--mode", "demo"] if own else []))
    assert done.stdout


@pytest.mark.long
def test_the_code_blocks_of_the_readme_run(project):
    done = run(
        project,
        "-c",
        "\n".join(blocks("python")) + "\nprint(vector.shape, abs(vector @ vector - 1) < 1e-3)",
    )
    assert re.search(r"\(\d+,\) True", done.stdout)


def test_the_korean_readme_shows_the_same_commands():
    korean = (ROOT / "README.ko.md").read_text(encoding="utf-8")
    for language in ("bash", "python", "powershell"):
        ours = [re.sub(r"\s*#.*", "", block) for block in blocks(language)]
        theirs = [re.sub(r"\s*#.*", "", block) for block in blocks(language, korean)]
        assert theirs == ours
    assert len(re.findall(r"^## ", korean, re.MULTILINE)) == len(
        re.findall(r"^## ", README, re.MULTILINE)
    )
    assert len(re.findall(r"^\|", korean, re.MULTILINE)) == len(
        re.findall(r"^\|", README, re.MULTILINE)
    )


def test_files_that_the_readme_links_to_exist():
    for text in (README, (ROOT / "README.ko.md").read_text(encoding="utf-8")):
        for link in re.findall(r"\]\(([^)#]+)\)", text):
            assert "://" in link or (ROOT / link).exists(), link


@pytest.mark.long
def test_the_notebook_runs(project):
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(project / "notebooks" / "quickstart.ipynb", as_version=4)
    NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(project / "notebooks")}},
    ).execute()
    printed = "".join(
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", [])
    )
    assert "generated:" in printed and "original:" in printed


def test_it_runs_with_this_python():
    assert sys.version_info[:2] >= (3, 11) and "Python 3.11 or newer" in README

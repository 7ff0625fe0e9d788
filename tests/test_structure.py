"""The shape of the program: imports go one way, and nothing heavy is imported before it is needed."""

import ast
import sys

import pytest

from tests.conftest import ROOT

STAGES = {
    "dataset_loader", "image_embedder", "similarity_search", "prompt_generator", "vlm_captioner", "db_manager",
    "caption_embedder",
}  # fmt: skip
SUPPORT = {
    "records", "config", "hub", "hub_errors", "model_loader", "database_files", "safe_files", "journal", "image_files",
    "sources",
}  # fmt: skip
HEAVY = {"torch", "transformers", "datasets", "sentence_transformers", "huggingface_hub", "matplotlib", "pycocoevalcap"}
MODULES = sorted(path.stem for path in ROOT.glob("*.py"))
TREES = {name: ast.parse((ROOT / f"{name}.py").read_text(encoding="utf-8")) for name in MODULES}


def imported(nodes) -> set[str]:
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("name", sorted(STAGES))
def test_stages_import_support_modules_only(name):
    ours = imported(ast.walk(TREES[name])) & set(MODULES)
    assert ours <= SUPPORT


def test_config_and_records_import_nothing_of_ours():
    assert imported(ast.walk(TREES["config"])) == set()
    assert not imported(ast.walk(TREES["records"])) & set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_heavy_packages_are_imported_inside_functions(name):
    assert not imported(TREES[name].body) & HEAVY


@pytest.mark.parametrize("name", MODULES)
def test_settings_are_read_when_they_are_used(name):
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.ImportFrom):
            assert node.module != "config", "from config import X would miss later changes"
        if isinstance(node, ast.FunctionDef):
            defaults = [d for d in [*node.args.defaults, *node.args.kw_defaults] if d is not None]
            assert not any("config." in ast.unparse(default) for default in defaults), node.name


def test_there_is_no_circle_of_imports():
    edges = {name: imported(TREES[name].body) & set(MODULES) for name in MODULES}
    while edges:
        free = {name for name, needs in edges.items() if not needs & set(edges)}
        assert free, f"a circle among {sorted(edges)}"
        edges = {name: needs for name, needs in edges.items() if name not in free}


def test_every_requirement_is_pinned():
    for file in ROOT.glob("requirements*.txt"):
        lines = [line.split("#")[0].strip() for line in file.read_text().splitlines()]
        assert all("==" in line or line.startswith("-r ") for line in lines if line), file


def test_this_python_is_supported():
    assert sys.version_info >= (3, 11)

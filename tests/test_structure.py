"""The shape of the program: who may import whom, what stands where, how long things are.

docs/ARCHITECTURE.md draws the same as a floor plan.
"""

import ast
import statistics
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.helpers import ROOT, run_python

STAGES = (
    "dataset_loader", "image_embedder", "similarity_search", "prompt_generator", "vlm_captioner",
    "db_manager", "caption_embedder",
)  # fmt: skip
BASE = (
    "config", "support.errors", "support.text", "support.result", "support.paths", "support.log",
)  # fmt: skip
RECORDS = (*BASE, "support.records")
BELOW_SOURCES = (*RECORDS, "support.hub", "support.storage")
SUPPORT = ("config", "support")
PIPELINE = (*SUPPORT, *STAGES, "experiments", "pages", "cli", "demo", "main")
DEMO_COMMANDS = ("demo.train", "demo.report", "demo.picture", "demo.sheet")
# What a module may import, by the longest prefix of its name; itself and its own package always.
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "config": (),
    "support.errors": ("support.text",),
    "support.log": ("support.text",),
    "support.terminal": (),
    "support.search": ("support.threads",),
    "support.garbage": (),
    "support.threads": (),
    "support.text": (),
    "support.result": (),
    "support.paths": (),
    "support.extra_scores": (),
    "support.records": ("support.result",),
    "support.settings": BASE,
    "support.candidates": RECORDS,
    "support.batches": BASE,
    "support.hub": RECORDS,
    "support.storage": (*BASE, "support.garbage"),
    "support.sources": BELOW_SOURCES,
    "support.models": (*RECORDS, "support.hub"),
    "support.server": (*RECORDS, "support.hub", "support.threads"),
    **dict.fromkeys(STAGES, SUPPORT),
    "experiments": (*SUPPORT, *STAGES),
    "pages": SUPPORT,
    "cli": SUPPORT,
    "demo": SUPPORT,
    "main": (*SUPPORT, *STAGES, "experiments", "pages", "cli", "demo"),
    "scale": PIPELINE,  # a program beside main; imported by nobody but its tests and benchmark
    "setup_token": SUPPORT,
    # How the demo was made, and its commands, are above main; so are benchmarks and tests.
    "demo.making": PIPELINE,
    **dict.fromkeys(DEMO_COMMANDS, ("demo.making",)),
    "benchmarks": (*PIPELINE, "scale", "tests"),
    "tests": (*PIPELINE, "demo.making", "setup_token", "scale"),
}
GROUND_FLOOR = {
    *(f"{name}.py" for name in (*STAGES, "config", "main", "setup_token")),
    *("requirements.txt", "requirements-dev.txt", "requirements-eval.txt"),
    *("requirements-heic.txt", "requirements-scale.txt"),
    *("README.md", "README.ko.md", "LICENSE", "pyproject.toml", ".gitignore"),
    *(".ci", "support", "experiments", "pages", "cli", "demo", "scale", "docs"),
    *("tests", "benchmarks", "notebooks", "results"),
}
HEAVY = {
    "torch", "transformers", "datasets", "sentence_transformers", "huggingface_hub", "matplotlib",
    "pycocoevalcap", "ray", "pymilvus", "pyarrow",
}  # fmt: skip


def tracked(*patterns: str) -> list[str]:
    command = ["git", "ls-files", "-co", "--exclude-standard", *patterns]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in found.stdout.splitlines() if (ROOT / name).exists()]


def module_name(path: str) -> str:
    return ".".join(Path(path).with_suffix("").parts).removesuffix(".__init__")


def is_in(name: str, *packages: str) -> bool:
    """Whether a module is one of `packages`, or inside one."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


FILES = {module_name(path): path for path in tracked("*.py")}
TREES = {name: ast.parse((ROOT / path).read_text("utf-8")) for name, path in FILES.items()}
OURS = {name.split(".")[0] for name in FILES}
ABOVE_MAIN = ("demo.making", *DEMO_COMMANDS, "benchmarks", "tests")
PROGRAM = [name for name in FILES if not is_in(name, *ABOVE_MAIN)]
PACKAGES = ("support", "experiments", "pages", "cli", "demo", "scale", "benchmarks", "tests")


def imported(nodes) -> set[str]:
    """The modules that statements import."""
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide who imports whom"
            modules = {f"{node.module}.{alias.name}" for alias in node.names} & set(FILES)
            names |= modules or {node.module}
    return names


def our_imports(name: str) -> set[str]:
    return {other for other in imported(ast.walk(TREES[name])) if other.split(".")[0] in OURS}


def rule_for(name: str) -> str:
    """The entry of MAY_IMPORT for a module: the longest prefix of its name."""
    return max((entry for entry in MAY_IMPORT if is_in(name, entry)), key=len)


# --- Who imports whom -----------------------------------------------------------------------------
@pytest.mark.parametrize("name", sorted(FILES))
def test_imports_go_one_way(name):
    if FILES[name].endswith("__init__.py") and name != "demo":
        assert not our_imports(name)
        return
    rule = rule_for(name)
    own_package = rule if rule.split(".")[0] in PACKAGES else name
    for other in our_imports(name):
        if is_in(other, own_package) and rule_for(other) == rule:
            continue
        assert is_in(other, *MAY_IMPORT[rule]), f"{name} imports {other}"
        upwards = is_in(other, *ABOVE_MAIN) and not is_in(name, *ABOVE_MAIN)
        assert not upwards, f"{name} imports {other}"


# Where modules are imported by a name that this test cannot follow. Only one is ours: the demo, for
# a notebook that opens the dataset alone.
DYNAMIC = {"import_module", "__import__", "resolve_name", "exec", "run_module"}
DYNAMIC_ALLOWED = {"dataset_loader": 1}


@pytest.mark.parametrize("name", sorted(PROGRAM))
def test_modules_are_imported_by_import_statements(name):
    calls = [node.func for node in ast.walk(TREES[name]) if isinstance(node, ast.Call)]
    called = [getattr(call, "attr", getattr(call, "id", "")) for call in calls]
    dynamic = [call for call in called if call in DYNAMIC]
    assert len(dynamic) == DYNAMIC_ALLOWED.get(name, 0)


def test_every_rule_is_about_a_module_that_exists():
    for entry in MAY_IMPORT:
        assert any(is_in(name, entry) for name in FILES), entry


def test_there_is_no_circle_of_imports():
    edges = {name: our_imports(name) - {name} for name in FILES}
    while edges:
        free = {name for name, needs in edges.items() if not needs & set(edges)}
        assert free, f"a circle among {sorted(edges)}"
        edges = {name: needs for name, needs in edges.items() if name not in free}


def run_at_import(node: ast.AST):
    """The nodes that run when the module is imported: all but the bodies of functions."""
    for child in ast.iter_child_nodes(node):
        is_function = isinstance(child, ast.FunctionDef | ast.Lambda)
        yield child
        yield from run_at_import(child.args if is_function else child)


@pytest.mark.parametrize("name", sorted(PROGRAM))
def test_heavy_packages_are_imported_inside_functions(name):
    top = {other.split(".")[0] for other in imported(run_at_import(TREES[name]))}
    assert not top & HEAVY


@pytest.mark.parametrize("name", sorted(PROGRAM))
def test_settings_are_read_when_they_are_used(name):
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.ImportFrom):
            assert node.module != "config", "from config import X would miss later changes"
    for node in run_at_import(TREES[name]):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            early = node.value.id == "config" and node.attr.isupper()
            assert not early, f"config.{node.attr} is read at import"


LOOK = """
import importlib, logging, os, signal, sys
def state():
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    levels = logging.getLogger("captioning").level, list(logging.getLogger().handlers)
    return dict(os.environ), os.getcwd(), list(sys.path), handlers, levels
before = state()
for name in sys.argv[1:]:
    importlib.import_module(name)
    assert state() == before, name
print("nothing changed")
"""


def test_importing_a_module_changes_nothing_outside_it():
    tokens = {"HUGGINGFACE_TOKEN": "hf_x", "HF_TOKEN": ""}
    done = run_python("-c", LOOK, *sorted(PROGRAM), **tokens)
    assert done.stdout == "nothing changed\n", done.stderr


def test_there_is_one_log_and_only_the_command_line_prints():
    """support.log makes records safe to print, and the command line puts a gate before stdout."""
    may_print = ("main", "cli", "scale.__main__", "setup_token", "demo.making")
    for name in PROGRAM:
        calls = [node.func for node in ast.walk(TREES[name]) if isinstance(node, ast.Call)]
        called = {getattr(func, "attr", getattr(func, "id", "")) for func in calls}
        assert "getLogger" not in called or name == "support.log", name
        assert "print" not in called or is_in(name, *may_print), name


# --- What stands where ----------------------------------------------------------------------------
def test_the_ground_floor_shows_the_pipeline_only():
    assert {name.split("/")[0] for name in tracked()} == GROUND_FLOOR


def test_no_name_shadows_a_package():
    others = set(packages_distributions()) | set(sys.stdlib_module_names) | {"evaluate"}
    assert not (OURS - {"tests", "benchmarks"}) & others


def test_files_functions_and_classes_are_short():
    functions = []
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                length = node.end_lineno - node.lineno + 1
                limit = 50 if isinstance(node, ast.FunctionDef) else 200
                assert length <= limit, f"{name}: {node.name} has {length} lines"
                if isinstance(node, ast.FunctionDef) and not is_in(name, "tests"):
                    functions.append(length)
    assert statistics.median(functions) <= 8
    assert len((ROOT / "main.py").read_text("utf-8").splitlines()) < 330


def test_public_functions_and_classes_have_docstrings():
    undocumented = []
    for name in PROGRAM:
        if is_in(name, "demo.drawing"):  # painters of one shape each, named after it
            continue
        for node in TREES[name].body:
            public = isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_"
            if public and not ast.get_docstring(node):
                undocumented.append(f"{name}.{node.name}")
    assert undocumented == []


def test_every_requirement_is_pinned():
    for file in ROOT.glob("requirements*.txt"):
        lines = [line.split("#")[0].strip() for line in file.read_text().splitlines()]
        assert all("==" in line or line.startswith("-r ") for line in lines if line), file


def test_this_python_is_supported():
    assert sys.version_info >= (3, 11)

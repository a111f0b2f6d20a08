"""The rules of the code, held by a test: sizes, arrows, no cycles, no dumping grounds, no talk outside the console, fast help."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("shards", "curate", "train", "eval")
MAY_IMPORT = {"shards": set(), "curate": {"shards"}, "train": {"shards"}, "eval": {"shards", "train"}}
LONGEST_FILE, LONGEST_FUNCTION = 500, 60
DUMPING_GROUNDS = {"utils", "util", "helpers", "common", "misc"}
# What `--help` may not cause to be loaded: each of these takes a tenth of a second or more.
HEAVY = ("numpy", "pyarrow", "duckdb", "PIL", "torch", "open_clip", "nvidia", "datasets", "img2dataset", "webdataset", "numba", "scipy")
HEAVY += (
    "timm",
    "torchvision",
    "safetensors",
    "cv2",
    "simplejpeg",
    "sklearn",
    "jinja2",
    "fsspec",
    "ftfy",
    "imagededup",
    "matplotlib",
    "pandas",
    "tensorboard",
)


@cache
def sources() -> dict[str, str]:
    """Return every Python file of the project, as module path and text."""
    folders = (*ROOMS, "tests", "demo", "benchmarks")
    return {str(p.relative_to(ROOT)): p.read_text() for folder in folders for p in sorted((ROOT / folder).rglob("*.py"))}


@cache
def of_rooms() -> dict[str, ast.Module]:
    """Return the rooms' files as trees, which take 1.4 seconds to parse and no test changes."""
    return {path: ast.parse(text) for path, text in sources().items() if path.split("/")[0] in ROOMS}


def imports(tree: ast.Module) -> set[str]:
    """Return all modules that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_there_is_something_to_look_at() -> None:
    assert len(of_rooms()) > 60


def test_no_file_is_long() -> None:
    assert {p: n for p, t in sources().items() if (n := len(t.splitlines())) > LONGEST_FILE} == {}


def test_no_two_test_files_share_a_name() -> None:
    """Their folders are no packages: pytest refuses the second file of a name, in whatever process it meets both."""
    counts = Counter(Path(path).name for path in sources() if Path(path).name.startswith("test_"))
    assert [name for name, count in counts.items() if count > 1] == []


def test_no_function_is_long() -> None:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    found = {
        f"{path}:{node.lineno} {node.name}": length
        for path, text in sources().items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, functions) and (length := (node.end_lineno or 0) - node.lineno + 1) > LONGEST_FUNCTION
    }
    assert found == {}


def test_arrows_point_one_way() -> None:
    wrong = []
    for path, tree in of_rooms().items():
        room = path.split("/")[0]
        others = {name.split(".")[0] for name in imports(tree)} & set(ROOMS) - {room}
        wrong += [f"{path} imports {other}" for other in sorted(others - MAY_IMPORT[room])]
    assert wrong == []


def test_each_heavy_library_has_its_room() -> None:
    for path, tree in of_rooms().items():
        roots = {name.split(".")[0] for name in imports(tree)}
        if "torch" in roots or "open_clip" in roots:
            assert path.split("/")[0] in ("train", "eval") or path == "curate/embed.py", path
        if "nvidia" in roots:
            assert path == "train/data/decode/dali.py", path


def test_no_module_imports_itself_by_a_detour() -> None:
    trees = of_rooms()
    modules = {path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): path for path in trees}
    graph = {name: {m for m in imports_at_top(trees[path]) if m in modules and m != name} for name, path in modules.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"a cycle: {' -> '.join((*trail[trail.index(name) :], name))}"
        if name not in done:
            for other in sorted(graph[name]):
                visit(other, (*trail, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())


def imports_at_top(tree: ast.Module) -> set[str]:
    return imports(ast.Module([node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)], []))


def test_there_is_no_dumping_ground() -> None:
    assert [path for path in sources() if Path(path).stem in DUMPING_GROUNDS] == []


def test_only_the_console_prints() -> None:
    allowed = {"shards/core/console.py", "shards/core/cli.py"}
    found = [
        f"{path}:{node.lineno}"
        for path, tree in of_rooms().items()
        for node in ast.walk(tree)
        if path not in allowed and isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert found == []


def test_no_pickle_is_ever_loaded() -> None:
    """Unpickling runs what a file says. Between our own processes (the engine) it is the standard library's way."""
    found = []
    for path, tree in of_rooms().items():
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            name, given = ast.unparse(call.func), {k.arg: ast.unparse(k.value) for k in call.keywords}
            unsafe = name.startswith(("pickle.load", "marshal.load", "shelve.", "joblib.load", "pd.read_pickle"))
            unsafe |= name == "torch.load" and given.get("weights_only") != "True"
            unsafe |= name in ("np.load", "numpy.load") and given.get("allow_pickle") != "False"
            if unsafe and path != "shards/core/engines/local.py":
                found.append(f"{path}:{call.lineno} {name}")
    assert found == []


def test_public_functions_say_what_they_do() -> None:
    found = [
        f"{path}:{node.lineno} {node.name}"
        for path, tree in of_rooms().items()
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_") and not ast.get_docstring(node)
    ]
    assert found == []


def test_every_module_says_what_it_is() -> None:
    assert [path for path, text in sources().items() if text.strip() and not ast.get_docstring(ast.parse(text))] == []


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("curate.cli", ["--help"]), ("curate.cli", ["build-shards", "--help"]), ("curate.cli", ["fetch", "--help"]),
        ("shards.cli", ["--help"]), ("shards.cli", ["subset", "--help"]), ("train.cli", ["--help"]), ("train.cli", ["clip", "--help"]),
        ("eval.cli", ["--help"]), ("eval.cli", ["probe", "--help"]),
    ],
)  # fmt: skip
def test_help_loads_nothing_heavy(module: str, arguments: list[str]) -> None:
    code = f"import sys; from {module} import main; code = main({arguments!r}); print(*sys.modules, file=sys.stderr); sys.exit(code)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "usage:" in done.stdout
    loaded = {name.split(".")[0] for name in done.stderr.split()}
    assert sorted(loaded & set(HEAVY)) == []


@pytest.mark.slow
def test_ruff_and_mypy_are_content() -> None:
    lint = subprocess.run([sys.executable, "-m", "ruff", "check", "."], cwd=ROOT, check=False, capture_output=True, text=True)
    assert lint.returncode == 0, lint.stdout
    layout = subprocess.run([sys.executable, "-m", "ruff", "format", "--check", "."], cwd=ROOT, check=False, capture_output=True, text=True)
    assert layout.returncode == 0, layout.stdout
    types = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, check=False, capture_output=True, text=True)
    assert types.returncode == 0, types.stdout

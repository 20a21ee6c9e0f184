"""Rules of structure: who imports whom, how long files and functions grow, what is documented."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = tuple(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["root_packages"])
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
LONGEST_FILE = 350
LONGEST_FUNCTION = 60
MOST_PARAMETERS = 8


def name_of(path):
    """`worker/engine/__init__.py` is `worker.engine`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def tree_of(path):
    """The file's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports_of(path):
    """The modules of ours that a file imports anywhere in it, under TYPE_CHECKING and in functions as well."""
    known = {name_of(module) for module in MODULES}
    names = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)} imports relatively: say the whole name"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names & known)


def test_the_import_contracts_hold():
    """Imports go one way between the packages, as pyproject.toml draws them."""
    linter = Path(sys.executable).with_name("lint-imports")

    result = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stdout + result.stderr


def test_no_module_imports_itself_by_a_detour():
    """There are no circles among modules, not even for type checkers."""
    graph = {name_of(path): imports_of(path) - {name_of(path)} for path in MODULES}
    done = set()

    def visit(module, trail):
        assert module not in trail, " → ".join([*trail[trail.index(module) :], module])
        if module not in done:
            for imported in sorted(graph[module]):
                visit(imported, [*trail, module])
            done.add(module)

    for module in graph:
        visit(module, [])


def test_only_the_adapter_imports_the_kafka_client():
    """Aiokafka's names and errors end in runtime/kafka: everything else sees plain records and our own errors. The
    exception is the bare loop that a benchmark compares the adapter with.
    """
    strangers = [
        name_of(path)
        for path in MODULES
        if not name_of(path).startswith(("runtime.kafka", "benchmarks.pipeline_raw"))
        for node in ast.walk(tree_of(path))
        if (isinstance(node, ast.Import) and any(alias.name.startswith("aiokafka") for alias in node.names))
        or (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("aiokafka"))
    ]

    assert strangers == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_file_is_one_documented_idea(path):
    """Every module says what it is, fits into one reading, and has no function that does not."""
    tree = tree_of(path)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]

    assert ast.get_docstring(tree), "no docstring"
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE
    assert {f.name: f.end_lineno - f.lineno + 1 for f in functions if f.end_lineno - f.lineno >= LONGEST_FUNCTION} == {}
    assert [f.name for f in functions if _parameters(f) > MOST_PARAMETERS] == []


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=name_of)
def test_a_benchmark_with_a_main_function_runs_it(path):
    """`python -m benchmarks.NAME` would otherwise end at once, with status 0 and without a word."""
    body = tree_of(path).body
    if "main" in {node.name for node in body if isinstance(node, ast.FunctionDef)}:
        assert ast.unparse(body[-1]).splitlines() == ["if __name__ == '__main__':", "    main()"]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_is_left_for_later(path):
    """No marks of unfinished work, and no exception swallowed without a word."""
    source = path.read_text(encoding="utf-8")
    swallowed = [
        node.lineno
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ExceptHandler) and len(node.body) == 1 and isinstance(node.body[0], ast.Pass)
    ]

    assert not any(mark in source for mark in ("TODO", "FIXME", "XXX", "NotImplementedError"))
    assert swallowed == []


def test_tests_mirror_the_source():
    """A test file stands in the folder of its package; none is for a package that does not exist."""
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and path.name != "__pycache__"}

    assert folders <= {*PACKAGES, "architecture", "deploy", "golden", "integration", "mutation", "support"}


def _parameters(function):
    """How many arguments a caller may give, `self` and `cls` apart."""
    arguments = function.args
    names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return len([name for name in names if name not in {"self", "cls"}])

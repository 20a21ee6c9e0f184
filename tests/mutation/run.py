"""Mutation run over the modules that decide: `make mutants`, or `python tests/mutation/run.py [MODULE ...]`.

mutmut leaves functions with decorators alone: numba's kernels, properties, context managers. So each module is staged
first: a copy of the working tree under out/mutants, in which the module's kernels lose their `njit` and every other
decorator stands behind its function as an assignment, which means the same. mutmut runs there.

Mutants of equivalent.toml change no behaviour and do not count.

Results: a table on standard output and in out/mutants/summary.md, the survivors as diffs in out/mutants/survivors/.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import resource
import shutil
import subprocess
import sys
import time
import tomllib
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODULES_FILE = Path(__file__).with_name("modules.toml")
EQUIVALENT_FILE = Path(__file__).with_name("equivalent.toml")
OUT = ROOT / "out" / "mutants"

UNMUTATED_LINES = [
    r"^\s*raise ",  # the words of an error
    r"^\s*(self\.)?_?log(ger)?\.",  # the words of a log line
]
COMPILERS = ("njit",)  # decorators that are left away
KEPT = ("staticmethod", "classmethod", "abstractmethod", "overload")  # decorators that mutmut knows or that stay
TIMEOUT_FACTOR, TIMEOUT_SECONDS = 3.0, 3.0  # a mutant may take factor · (its tests' time + seconds)
CAUGHT = ("killed", "timeout", "segfault", "suspicious", "caught by type check")


def main() -> int:
    """Run the modules asked for, then show the table of all results so far."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", help="paths or their beginnings, such as worker/ (default: all)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="mutants at a time (default: one per core)")
    parser.add_argument("--list", action="store_true", help="only check that every listed path exists")
    arguments = parser.parse_args()
    tests_of = listed_modules()
    for asked in arguments.modules:
        if not any(module.startswith(asked) for module in tests_of):
            raise SystemExit(f"{MODULES_FILE.name} lists no module that begins with {asked}")
    chosen = [module for module in tests_of if not arguments.modules or module.startswith(tuple(arguments.modules))]
    if arguments.list:
        print("\n".join(chosen))
        return 0
    failed = [module for module in chosen if not run_module(module, tests_of[module], arguments.jobs)]
    table = summary(list(tests_of))
    (OUT / "summary.md").write_text(table, encoding="utf-8")
    print(f"\n{table}\nSurvivors: {OUT.relative_to(ROOT)}/survivors/")
    if failed:
        print(f"No result for {', '.join(failed)}: see mutmut.log in out/mutants/stage/", file=sys.stderr)
    return 1 if failed else 0


def listed_modules() -> dict[str, list[str]]:
    """The modules and their tests; ends the run if a path does not exist."""
    tests_of: dict[str, list[str]] = tomllib.loads(MODULES_FILE.read_text(encoding="utf-8"))["modules"]
    paths = dict.fromkeys(path.removeprefix("not ") for module, tests in tests_of.items() for path in (module, *tests))
    missing = [path for path in paths if not exists(path)]
    if missing:
        raise SystemExit(f"{MODULES_FILE.relative_to(ROOT)} lists what does not exist: {', '.join(missing)}")
    return tests_of


def exists(path: str) -> bool:
    """Whether there is such a file or folder, and with `::name` such a test in it."""
    file, _, test = path.partition("::")
    return (ROOT / file).exists() and (not test or f"def {test}(" in (ROOT / file).read_text("utf-8"))


def run_module(module: str, tests: list[str], jobs: int) -> bool:
    """Mutate one module and write its result; False if mutmut could not run."""
    began = time.monotonic()
    print(f"{module} ...", end=" ", flush=True)
    folder = stage(module, tests)
    result_file(module).unlink(missing_ok=True)
    with (folder / "mutmut.log").open("w") as log:
        status = subprocess.run(
            [sys.executable, "-m", "mutmut", "run", "--max-children", str(jobs)],
            cwd=folder,
            env=environment(folder, module),
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)),
            check=False,
        ).returncode
    log_text = (folder / "mutmut.log").read_text(errors="replace")
    if status and "could not find any test case for any mutant" not in log_text:
        print(f"mutmut failed:\n{log_text[-3000:]}")
        return False
    record(module, folder, time.monotonic() - began)
    return True


def stage(module: str, tests: list[str]) -> Path:
    """A copy of the working tree in which mutmut finds this module in a form that it can mutate."""
    folder = OUT / "stage" / module.removesuffix(".py").replace("/", ".")
    shutil.rmtree(folder, ignore_errors=True)
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, files):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / module).write_text(without_decorators((ROOT / module).read_text("utf-8")), encoding="utf-8")
    config = {
        "source_paths": [module],
        "do_not_mutate_patterns": UNMUTATED_LINES,
        "also_copy": sorted(path.name for path in folder.iterdir()),
        "pytest_add_cli_args": ["-p", "mutation_profile", "-p", "no:cacheprovider", "--tb=no"],
        "pytest_add_cli_args_test_selection": [
            *(f"--deselect={test.removeprefix('not ')}" if test.startswith("not ") else test for test in tests),
            *("-m", "not docker"),
        ],
        "timeout_multiplier": TIMEOUT_FACTOR,
        "timeout_constant": TIMEOUT_SECONDS,
        "track_dependencies": False,
        "use_git_change_detection": False,
    }
    with (folder / "pyproject.toml").open("a") as file:
        # JSON's strings, numbers and lists are TOML's too
        file.write("\n[tool.mutmut]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in config.items()))
    return folder


def without_decorators(source: str) -> str:
    """The module with `@d` before functions as `name = d(name)` behind them, and without compilers."""
    lines = source.split("\n")
    tree = ast.parse(source)
    bodies = [tree.body, *(node.body for node in tree.body if isinstance(node, ast.ClassDef))]
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    functions = [node for body in bodies for node in body if isinstance(node, kinds)]
    for function in sorted(functions, key=lambda node: node.lineno, reverse=True):
        names = [ast.unparse(decorator).partition("(")[0] for decorator in function.decorator_list]
        if not names or any(name in KEPT for name in names):
            continue
        behind = function.name
        for name, decorator in zip(reversed(names), reversed(function.decorator_list), strict=True):
            if name not in COMPILERS:
                behind = f"({ast.unparse(decorator)})({behind})"
        if behind != function.name:
            lines.insert(function.end_lineno or 0, " " * function.col_offset + f"{function.name} = {behind}")
        for decorator in function.decorator_list:
            for number in range(decorator.lineno - 1, decorator.end_lineno or 0):
                lines[number] = ""
    return "\n".join(lines)


def environment(folder: Path, module: str) -> dict[str, str]:
    """The environment of mutmut: one thread per process, our plugin importable, the module's own kernels as Python."""
    variables = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    variables |= {"PYTHONPATH": str(folder / "tests" / "mutation"), "PYTHONHASHSEED": "0"}
    variables["NUMBA_CACHE_DIR"] = str(OUT / "numba")
    if any(f"@{compiler}" in (ROOT / module).read_text("utf-8") for compiler in COMPILERS):
        variables["NUMBA_DISABLE_JIT"] = "1"
    return os.environ | variables


def record(module: str, folder: Path, seconds: float) -> None:
    """Keep the counts and the survivors' diffs of a module."""
    from mutmut.configuration import reset_config  # noqa: PLC0415 - a development dependency that only a run needs
    from mutmut.mutation.data import SourceFileMutationData  # noqa: PLC0415
    from mutmut.mutation.diff_apply import get_diff_for_mutant  # noqa: PLC0415
    from mutmut.stats import status_by_exit_code  # noqa: PLC0415

    os.chdir(folder)
    reset_config()
    data = SourceFileMutationData(path=Path(module))
    data.load()
    statuses, survivors = {}, []
    for name, code in data.exit_code_by_key.items():
        statuses[name] = "no tests" if code is None else status_by_exit_code[code]
        if statuses[name] in CAUGHT:
            continue
        diff = get_diff_for_mutant(name, path=module)
        if is_equivalent(module, diff):
            statuses[name] = "equivalent"
        else:
            survivors.append(f"# {name.rpartition('.')[2]} ({statuses[name]})\n{diff}\n")
    os.chdir(ROOT)
    counts = Counter(statuses.values())
    result = {"counts": counts, "seconds": round(seconds, 1), "slowest": slowest(data.durations_by_key)}
    for file, text in (
        (result_file(module), json.dumps(result)),
        (OUT / "survivors" / f"{folder.name}.txt", f"{module}: {len(survivors)} survivors\n\n" + "\n".join(survivors)),
    ):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    total = sum(counts.values())
    print(f"{total} mutants, {len(survivors)} survived, {seconds:.0f} s ({seconds / max(total, 1):.2f} s each)")


def is_equivalent(module: str, diff: str) -> bool:
    """Whether equivalent.toml says of this change that it changes no behaviour."""
    before, after = changed_lines(diff)
    return any(
        before.replace(entry["before"], other, 1) == after
        for entry in tomllib.loads(EQUIVALENT_FILE.read_text(encoding="utf-8"))["equivalent"]
        if entry.get("module", module) == module and entry["before"] in before
        for other in entry["after"]
    )


def changed_lines(diff: str) -> tuple[str, str]:
    """What a diff takes out and what it puts in, each as one line."""
    body = diff.split("\n")[2:]
    return tuple(" ".join(line[1:].strip() for line in body if line.startswith(sign)) for sign in "-+")


def slowest(durations: dict[str, float | None]) -> float:
    """The longest time that a mutant took, in seconds."""
    return round(max((seconds for seconds in durations.values() if seconds), default=0.0), 1)


def result_file(module: str) -> Path:
    """Where the counts of a module are kept."""
    return OUT / "results" / (module.removesuffix(".py").replace("/", ".") + ".json")


def summary(modules: list[str]) -> str:
    """One line per module, in the list's order, and one for all."""
    lines = [
        "| module | mutants | killed | timed out | survived | no test | equivalent | score | seconds |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    everything: Counter[str] = Counter()
    seconds = 0.0
    for module in modules:
        if not result_file(module).exists():
            lines.append(f"| {module} | not run | | | | | | | |")
            continue
        result = json.loads(result_file(module).read_text("utf-8"))
        everything.update(result["counts"])
        seconds += result["seconds"]
        lines.append(table_row(f"`{module}`", Counter(result["counts"]), result["seconds"]))
    return "\n".join([*lines, table_row("all", everything, seconds)]) + "\n"


def table_row(name: str, counts: Counter[str], seconds: float) -> str:
    """Counts as a line of the table."""
    total, timed_out = sum(counts.values()), counts["timeout"]
    caught = sum(counts[status] for status in CAUGHT)
    untested, equivalent = counts["no tests"], counts["equivalent"]
    cells = (total, caught - timed_out, timed_out, total - caught - untested - equivalent, untested, equivalent)
    score = f"{100 * caught / (total - equivalent):.1f} %" if total > equivalent else "-"
    return f"| {name} | {' | '.join(map(str, cells))} | {score} | {seconds:.0f} |"


if __name__ == "__main__":
    sys.exit(main())

"""Packages of PyPI that use Celery, migrated: what is left parses, imports, and is theirs."""

from __future__ import annotations

import ast
import importlib.util
import py_compile
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from support.patching import apply
from support.task_code import analysed, migrate
from support.venv import clean_environ

IMPORT_ALL = """
import importlib, pkgutil, sys
import django
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth"] + sys.argv[2:],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    USE_TZ=True,
)
django.setup()
package = importlib.import_module(sys.argv[1])
assert package.__file__.startswith(sys.path[0]), package.__file__
for module in sys.argv[1:2] + [one for one in open(sys.path[0] + "/modules").read().split()]:
    importlib.import_module(module)
"""
"""Imports a package, and the modules that were migrated, from the first folder of the path."""
INSTALLED = {
    "post_office": 2, "djcelery_email": 1, "django_celery_results": 0, "celery_batches": 0,
    "redbeat": 0, "celery": 10,
}  # fmt: skip
"""How many tasks each package has."""
MIGRATED = {"post_office": 2, "celery": 10}


def copied(name: str, folder: Path) -> Path:
    """The package as it is installed, in a folder of its own."""
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.origin is not None
    there = folder / name
    shutil.copytree(Path(spec.origin).parent, there, ignore=shutil.ignore_patterns("*.pyc"))
    return there


def sources(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*.py")}


@pytest.mark.parametrize("name", INSTALLED)
def test_a_package_is_migrated_and_still_imports(name: str, tmp_path: Path) -> None:
    package = copied(name, tmp_path)
    before = sources(package)
    assert len(analysed(package)["tasks"]) == INSTALLED[name]
    diffs = [f"--- a/{one}" for one in migrate("--dry-run", package).stdout.split("--- a/")[1:]]
    assert migrate(package).exit_code in (0, 1)  # some are made by calls
    after = sources(package)

    changed = [path for path in before if before[path] != after[path]]
    for path in changed:
        named = str(path).lstrip("/")
        (diff,) = (one for one in diffs if one.startswith(f"--- a/{named}\n"))
        assert apply(diff, named, before[path].decode()) == after[path].decode()
        py_compile.compile(str(path), cfile=str(tmp_path / "compiled"), doraise=True)
        assert _defined(before[path]) == _defined(after[path])
    assert sum(text.count(b"base=IdempotentTask") for text in after.values()) == sum(
        text.count(b"base=IdempotentTask") for text in before.values()
    ) + MIGRATED.get(name, 0)  # fmt: skip
    _import(name, package, changed, tmp_path)


def _defined(code: bytes) -> Counter[str]:
    """Functions and classes by their bodies, which stay."""
    nodes = [one for one in ast.walk(ast.parse(code))
             if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]  # fmt: skip
    return Counter(ast.dump(ast.Module(one.body, [])) for one in nodes if not _inner(one))


def _inner(node: ast.AST) -> bool:
    """Whether other functions are defined within: their decorators are part of the body."""
    return any(
        isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)
        for one in ast.walk(node) if one is not node
    )  # fmt: skip


def _import(name: str, package: Path, changed: list[Path], folder: Path) -> None:
    modules = [".".join(path.relative_to(folder).with_suffix("").parts) for path in changed]
    (folder / "modules").write_text("\n".join(modules))
    apps = [name] if name in ("post_office", "djcelery_email", "django_celery_results") else []
    program = folder / "import_all.py"
    program.write_text(IMPORT_ALL)
    done = subprocess.run(
        [sys.executable, str(program), name, *apps],
        env=clean_environ(), capture_output=True, text=True, check=False, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert package.is_dir()

"""Analyses a whole code base: every file on its own, but for classes, apps and beats of all.

A file that cannot be read or parsed is told, and the others are looked at all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from .task_advice import report_of
from .task_classes import Tree, learn
from .task_files import Trouble, read_source
from .task_model import Action, Chosen, Dynamic, Level, Report
from .task_scan import Module, parsed, tasks_of


@dataclass(slots=True)
class Analysis:
    """What was found. `chosen`: the tasks to migrate by the path of their module."""

    files: int = 0
    reports: list[Report] = field(default_factory=list)
    dynamic: list[tuple[str, Dynamic]] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    modules: dict[str, Module] = field(default_factory=dict)
    chosen: dict[str, list[Chosen]] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Whether a file could not be looked at, which is another thing than leaving it out."""
        return any(not one.skipped for one in self.troubles)

    @property
    def open(self) -> bool:
        """Whether there is something to do: tasks to migrate, or what is worse than a note."""
        left = any(one.action is not Action.ALREADY for one in self.reports)
        return left or bool(self.dynamic) or any(
            finding.level is not Level.NOTE for one in self.reports for finding in one.findings
        )  # fmt: skip

    def count(self, action: Action) -> int:
        return sum(one.action is action for one in self.reports)


Wanted = Callable[[Report], bool]


def analyse(files: Iterable[str | Trouble], step: Callable[[], None] = lambda: None) -> Analysis:
    """Read and judge the files; `step` is called after each."""
    analysis, tree, modules = Analysis(), Tree(), []
    for one in files:
        found = one if isinstance(one, Trouble) else _module(one)
        analysis.files += 1
        if isinstance(found, Trouble):
            analysis.troubles.append(found)
        elif found is not None:
            modules.append(found)
            learn(tree, found.source.path, found.tree, found.names)
        step()
    for module in modules:
        try:
            _judge(analysis, module, tree)
        except RecursionError:
            analysis.troubles.append(Trouble(module.source.path, "is nested too deeply to be read"))
    return analysis


def _module(path: str) -> Module | Trouble | None:
    source = read_source(path)
    return source if source is None or isinstance(source, Trouble) else parsed(source)


def _judge(analysis: Analysis, module: Module, tree: Tree) -> None:
    path = module.source.path
    tasks, dynamic = tasks_of(module, tree)
    analysis.dynamic += [(path, one) for one in dynamic]
    for found in tasks:
        report = report_of(path, found, module.names, tree)
        analysis.reports.append(report)
        if report.action is Action.MIGRATE:
            analysis.modules[path] = module
            analysis.chosen.setdefault(path, []).append(Chosen(found, report.advice))


def narrowed(analysis: Analysis, categories: Sequence[str], tasks: Sequence[str]) -> Analysis:
    """Only the tasks of these categories and of these names; what is dynamic has neither."""
    if not categories and not tasks:
        return analysis
    kept = [one for one in analysis.reports if _wanted(one, categories, tasks)]
    places = {(one.path, one.line) for one in kept}
    chosen = {
        path: [one for one in group if (path, one.found.line) in places]
        for path, group in analysis.chosen.items()
    }
    return Analysis(
        files=analysis.files, reports=kept, troubles=analysis.troubles, modules=analysis.modules,
        chosen={path: group for path, group in chosen.items() if group},
    )  # fmt: skip


def _wanted(report: Report, categories: Sequence[str], tasks: Sequence[str]) -> bool:
    return (not categories or report.advice.category in categories) and (
        not tasks or not names_of_task(report).isdisjoint(tasks)
    )


def names_of_task(report: Report) -> set[str]:
    """By what a task may be asked for: `name`, `function`, `file.py:function`."""
    return {report.name, report.function, f"{report.path}:{report.function}"}


def unknown_tasks(analysis: Analysis, tasks: Sequence[str]) -> Iterator[str]:
    """Names that no task has."""
    known = {name for one in analysis.reports for name in names_of_task(one)}
    yield from (name for name in tasks if name not in known)

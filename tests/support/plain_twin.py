"""The app of `celery -A support.plain_twin`: the plain tasks, from the file that PLAIN_TASKS names.

So the same tests can run over demo/plain_tasks.py and over a migrated copy of it.
"""

from __future__ import annotations

import importlib.util
import os
import sys

NAME = "plain_tasks_under_test"

_spec = importlib.util.spec_from_file_location(NAME, os.environ["PLAIN_TASKS"])
assert _spec is not None and _spec.loader is not None
module = importlib.util.module_from_spec(_spec)
sys.modules[NAME] = module
_spec.loader.exec_module(module)
app = module.app
app.conf.task_ignore_result = False

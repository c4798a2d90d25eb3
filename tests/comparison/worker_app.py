"""The workers' app; CASE_PLACE (JSON) is its place."""

from __future__ import annotations

import json
import os

from .tasks import Place, build

app = build(Place(**json.loads(os.environ["CASE_PLACE"]))).app

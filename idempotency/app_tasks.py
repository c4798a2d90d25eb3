"""Imports the tasks of a user's app, as a worker does it.

Invariant: what goes wrong is told in one line, without the password of a URL that it repeats.
"""

from __future__ import annotations

import re
from typing import Any, Final

from .errors import ConfigurationError

_PASSWORD: Final = re.compile(r"(://)[^@\s]*@")
_LONGEST: Final = 500


def import_tasks(app: Any) -> None:
    """`imports`, `include` and what is discovered. Raises ConfigurationError."""
    try:
        app.loader.import_default_modules()
        app.finalize()
    except Exception as error:  # they are anyone's code
        told = f"the app's tasks cannot be imported: {reason(error)}"
        raise ConfigurationError("imports", told) from error


def reason(error: Exception) -> str:
    """The kind and the text of an error of a user's code."""
    text = " ".join(_PASSWORD.sub(r"\1***@", str(error)).split())[:_LONGEST]
    return f"{type(error).__name__}: {text}"

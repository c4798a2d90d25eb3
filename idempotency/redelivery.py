"""The same message again: same id, same retries, same place in its canvas, a little later.

It is published before this delivery is acknowledged, so that at no moment is there none.
"""

from __future__ import annotations

import logging
import random
import re
import threading
from typing import Any, Final

from celery.exceptions import Ignore, Reject

from .errors import InvalidKey

log = logging.getLogger(__name__)

WAIT_HEADER: Final = "idemwatch_wait"
UNAVAILABLE_HEADER: Final = "idemwatch_unavailable"
LONGEST_DELAY_SECONDS: Final = 10.0
MOST_ATTEMPTS: Final = 2**31 - 1
"""What PostgreSQL's integer holds."""
_NO_TEXT: Final = re.compile("[\0\ud800-\udfff]")
DEFAULT_VISIBILITY_SECONDS: Final = 3600.0


def longest_delay_seconds(conf: Any) -> float:
    """How long a message may wait: well within the broker's visibility timeout.

    A message with an ETA that waits longer is itself redelivered, and copies multiply.
    """
    options = conf.broker_transport_options or {}
    visibility = float(options.get("visibility_timeout") or DEFAULT_VISIBILITY_SECONDS)
    return min(LONGEST_DELAY_SECONDS, visibility / 3)


def check_message(request: Any) -> None:
    """Refuse a message whose id or attempt no store could keep: it would be sent around for ever.

    Celery makes neither; one who publishes by hand may. Raises InvalidKey.
    """
    name, attempt = request.id, request.retries
    if name is not None and (not isinstance(name, str) or not _is_text(name)):
        raise InvalidKey("the message's id is no text that can be kept")
    if attempt is not None and (type(attempt) is not int or not 0 <= attempt <= MOST_ATTEMPTS):
        raise InvalidKey(f"the message's number of retries is none from 0 to {MOST_ATTEMPTS}")


def _is_text(name: str) -> bool:
    return _NO_TEXT.search(name) is None


def header(request: Any, name: str) -> str:
    """A header of the message, "" when it has none."""
    value = getattr(request, name, None)
    if value is None:
        value = (request.headers or {}).get(name)
    return str(value) if value is not None else ""


def publish_again(task: Any, delay_seconds: float, name: str, value: str) -> Ignore:
    """Publish the message again with one more header; raise the returned Ignore then.

    Raises Reject(requeue=True), after the delay, when the broker does not take it.
    """
    request = task.request
    headers = {**(request.headers or {}), name: value}
    shown = {n: request.get(n) for n in ("argsrepr", "kwargsrepr") if request.get(n) is not None}
    again = task.signature_from_request(
        request, countdown=delay_seconds, retries=request.retries, headers=headers, **shown
    )
    try:
        again.apply_async(add_to_parent=False)
    except Exception as error:
        log.warning("%s could not be published again: %s", request.id, type(error).__name__)
        # Not before the delay: until then this delivery would be taken for a copy too many.
        threading.Event().wait(delay_seconds + random.uniform(0.1, 0.5))
        raise Reject(f"not published again: {type(error).__name__}", requeue=True) from error
    return Ignore(f"{request.id} waits for {delay_seconds:.3g} s")


def backoff_seconds(attempt: int, longest: float) -> float:
    """Exponential, with jitter, from half a second up to `longest`."""
    return float(min(longest, 0.5 * 2 ** min(attempt, 10)) * random.uniform(0.5, 1.0))

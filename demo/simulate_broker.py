"""What the broker of a play holds, and which messages it has lost.

A worker takes a message from its queue in Redis (BRPOP) and then notes it as unacknowledged (HSET).
Killed between the two, it takes the message along, and no idempotency can bring that back.
Invariant: a message counts as vanished only if Redis itself told (MONITOR) that it was put into the
queue more often than it was noted, while the queue is empty.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import uuid
from collections import Counter
from typing import Final
from urllib.parse import urlsplit

import redis
from idemwatch.idempotency.errors import StoreUnavailable

from .simulate_redirect import QUEUE

QUEUES: Final = (QUEUE, *(f"{QUEUE}\x06\x16{priority}" for priority in (3, 6, 9)))
UNACKED: Final = "unacked"
_DEADLINE_SECONDS: Final = 30.0
_LINE: Final = re.compile(r'^\+?[\d.]+ \[(\d+) [^\]]*\] "(\w+)"(.*)$')
_TAG: Final = re.compile(r'\\"delivery_tag\\": \\"([^\\"]+)\\"')
_TASK_ID: Final = re.compile(r'\\"id\\": \\"([^\\"]+)\\"')
_NOTED: Final = re.compile(rf'^ "{UNACKED}" "([^"]+)" ')


class Traffic:
    """Which messages were put into the queue, and which were noted, by lines of MONITOR."""

    def __init__(self, database: int) -> None:
        self._database = database
        self._put: Counter[str] = Counter()
        self._noted: Counter[str] = Counter()
        self._task_ids: dict[str, str] = {}

    def read(self, line: str) -> None:
        """Take in a line."""
        found = _LINE.match(line)
        if found is None or int(found[1]) != self._database:
            return
        name, rest = found[2].upper(), found[3]
        if name in ("LPUSH", "RPUSH"):
            tag, task_id = _TAG.search(rest), _TASK_ID.search(rest)
            if tag is not None and task_id is not None:
                self._put[tag[1]] += 1
                self._task_ids[tag[1]] = task_id[1]
        elif name == "HSET" and (noted := _NOTED.match(rest)) is not None:
            self._noted[noted[1]] += 1

    def vanished(self) -> set[str]:
        """The task ids of messages that were taken and never noted, if the queue is empty."""
        return {self._task_ids[tag] for tag, times in self._put.items() if times > self._noted[tag]}


class Broker:
    """The broker of a play, watched from its making until `close`."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._client = redis.Redis.from_url(url)
        self._traffic = Traffic(int(parts.path.lstrip("/") or 0))
        self._mark, self._reached = uuid.uuid4().hex, threading.Event()
        self._socket = socket.create_connection((str(parts.hostname), int(parts.port or 0)))
        self._socket.sendall(b"MONITOR\r\n")
        self._thread = threading.Thread(target=self._listen, daemon=True, name="monitor")
        self._thread.start()

    def messages_left(self) -> int:
        """In the queue, and with a worker that has not acknowledged them."""
        with self._client.pipeline(transaction=True) as pipe:
            for queue in QUEUES:
                pipe.llen(queue)
            pipe.hlen(UNACKED)
            return int(sum(pipe.execute()))

    def vanished(self) -> set[str]:
        """The task ids of messages that a killed worker took along. Ask when none is left."""
        self._client.echo(self._mark)
        if not self._reached.wait(_DEADLINE_SECONDS):
            raise StoreUnavailable("redis", "the broker's MONITOR is behind")
        return self._traffic.vanished()

    def close(self) -> None:
        """End the thread and the connections."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(_DEADLINE_SECONDS)
        self._socket.close()
        self._client.close()

    def _listen(self) -> None:
        with self._socket.makefile("r", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                self._traffic.read(line.rstrip())
                if self._mark in line:
                    self._reached.set()

"""The workers of a round, each with proxies of its own before both stores."""

from __future__ import annotations

import json
import os
import signal
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from prometheus_client.parser import text_string_to_metric_families
from support.proxy import TcpProxy
from support.worker import FAST_REDELIVERY, Worker, start_worker

from .history import COUNTERS, Counted
from .plan import CONCURRENCY, LEASE_SECONDS, WORKERS, Round
from .servers import FAKETIME, RedisSite, Site

MAX_CRASHES: Final = 50


@dataclass
class Post:
    """One place in the crew: its proxies, and the worker that stands there now."""

    number: int
    proxies: dict[str, TcpProxy]
    env: dict[str, str]
    conf: dict[str, Any]
    worker: Worker | None = None
    lives: int = 0

    @property
    def name(self) -> str:
        """Of the worker that stands here now."""
        return f"w{self.number}.{self.lives}"

    def pids(self) -> list[int]:
        """The worker's processes, the main one first."""
        return [] if self.worker is None else [self.worker.pid, *self.worker.children()]


@dataclass
class Crew:
    """All workers of a round."""

    plan: Round
    folder: Path
    broker: str
    posts: list[Post]
    rule: str = ""
    closing: bool = False
    _stack: ExitStack = field(default_factory=ExitStack)

    def start(self) -> None:
        """Start all of them, side by side."""
        with ThreadPoolExecutor(len(self.posts)) as starters:
            list(starters.map(self.begin, self.posts))

    def begin(self, post: Post) -> None:
        """Put a new worker into a place, if there is none that runs."""
        if self.closing or (post.worker is not None and post.worker.running()):
            return
        post.lives += 1
        folder = self.folder / f"{self.plan.namespace}-{post.name}"
        folder.mkdir()
        conf = {**post.conf, "worker": post.name}
        env = {**post.env, "FAULTS_CONF": json.dumps(conf), "FAULTS_DISABLE": self.rule}
        env["IDEMWATCH_METRICS_DIR"] = env["TMPDIR"] = str(folder)
        post.worker = start_worker(
            "faults.app",
            broker=self.broker,
            backend=self.broker,
            folder=folder,
            pool=self.plan.pool,
            concurrency=CONCURRENCY,
            env=env,
        )
        self._end_if_closing(post.worker)

    def _end_if_closing(self, worker: Worker) -> None:
        if self.closing:  # since it was begun
            worker.kill()

    def post_of(self, pid: int) -> Post | None:
        """The place of a process."""
        return next((post for post in self.posts if pid in post.pids()), None)

    def stop_process(self, pid: int) -> None:
        """SIGSTOP to a process of ours: a child, or a whole worker with threads."""
        self._send(pid, signal.SIGSTOP)

    def go_on(self, pid: int) -> None:
        """SIGCONT."""
        self._send(pid, signal.SIGCONT)

    def _send(self, pid: int, number: signal.Signals) -> None:
        if self.post_of(pid) is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill_process(self, pid: int) -> None:
        """SIGKILL to a process of ours; a worker that is killed so is started again."""
        post = self.post_of(pid)
        if post is None or post.worker is None:
            return
        if pid == post.worker.pid:
            self.kill(post)
            self.begin(post)
        else:
            self._send(pid, signal.SIGKILL)

    def kill(self, post: Post) -> None:
        """SIGKILL to a worker and its children."""
        if post.worker is not None:
            post.worker.kill()

    def heal(self) -> None:
        """All proxies pass, all processes run."""
        for post in self.posts:
            for proxy in post.proxies.values():
                proxy.heal()
            if post.worker is not None and post.worker.running():
                post.worker.thaw()

    def ended(self) -> list[Post]:
        """Places whose worker has ended."""
        return [p for p in self.posts if p.worker is not None and not p.worker.running()]

    def killed(self) -> int:
        """How many whole workers were killed, and begun again."""
        return sum(post.lives - 1 for post in self.posts)

    def counted(self) -> dict[str, dict[Counted, float]]:
        """What the workers that have lived through the round have counted."""
        lived = [post for post in self.posts if post.lives == 1 and post not in self.ended()]
        return {post.name: self._scrape(post) for post in lived}

    def _scrape(self, post: Post) -> dict[Counted, float]:
        assert post.worker is not None
        folder = self.folder / f"{self.plan.namespace}-{post.name}" / post.worker.nodename
        url = (folder / "url").read_text().strip() + "/metrics"
        with urllib.request.urlopen(url, timeout=30) as reply:
            families = list(text_string_to_metric_families(reply.read().decode()))
        samples = [one for family in families for one in family.samples]
        return {
            (name, one.labels["task"], one.labels[label]): one.value
            for one in samples
            for name, label in COUNTERS.items()
            if one.name == f"idemwatch_{name}_total"
        }

    def close(self) -> None:
        """End all of them."""
        self.closing = True
        for post in self.posts:
            self.kill(post)
        self._stack.close()


@contextmanager
def open_crew(site: Site, plan: Round, rule: str, conf: dict[str, Any]) -> Iterator[Crew]:
    """The workers of a round, started. conf: for faults.app, beside what is set here."""
    redis_site = site.redis(plan.topology)
    crew = Crew(plan, site.folder, conf["broker"], [], rule)
    try:
        for number in range(WORKERS):
            crew.posts.append(_post(crew._stack, number, site, redis_site, plan, conf))
        crew.start()
        yield crew
    finally:
        crew.close()


def _post(
    stack: ExitStack, number: int, site: Site, redis_site: RedisSite, plan: Round,
    conf: dict[str, Any],
) -> Post:  # fmt: skip
    proxies = {"postgres": stack.enter_context(TcpProxy.before(site.postgres.url))}
    redis_url = redis_site.url
    if redis_site.proxied:
        proxies["redis"] = stack.enter_context(TcpProxy.before(redis_url))
        redis_url = proxies["redis"].url(redis_url)
    celery = {
        "broker_transport_options": FAST_REDELIVERY,
        "idempotency_namespace": plan.namespace,
        "idempotency_lease": LEASE_SECONDS,
        "idempotency_max_crashes": MAX_CRASHES,
        "idempotency_redis_url": redis_url,
        "idempotency_database_url": proxies["postgres"].url(site.postgres.url),
    }
    env = {"IDEMWATCH_METRICS_ADDRESS": "127.0.0.1:0"}
    if plan.clock:
        env |= {"LD_PRELOAD": str(FAKETIME), "FAKETIME": plan.clock}
        env |= {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1"}
    return Post(number, proxies, env, {**conf, "celery": celery})


def alive(pid: int) -> bool:
    """Whether a process runs."""
    with suppress(OSError):
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state not in ("Z", "X")
    return False

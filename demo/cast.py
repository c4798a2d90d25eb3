"""All that plays in the demo, started and ready: worker, beats, exporter, Prometheus and so on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

from idemwatch.idempotency.errors import ConfigurationError
from idemwatch.idempotency.settings import Settings

from .celery_app import SHORT_VISIBILITY_SECONDS
from .crew import REFRESH_SECONDS, Crew
from .fleet import fleet, insert
from .ledger import Journal, Ledger
from .listening import Listening
from .monitoring import Monitoring
from .scenarios import Scenario
from .screen import Screen
from .services import missing_packages
from .smtp_server import Inbox, MailServer
from .stage import Stage
from .watch import Watch
from .webhook import Webhook
from .worker import DemoWorker

CALM_VISIBILITY_SECONDS: Final = 15
"""In a scenario duplicates come by its script alone, not by a machine that is slow for 2 s."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the user asked for. `seconds` None: until Ctrl-C, or the scenario's end."""

    seconds: float | None
    metrics_address: str
    scenario: Scenario | None = None

    @property
    def pattern(self) -> str:
        """The traffic, all the time."""
        return "mixed" if self.scenario is None else "calm"

    @property
    def visibility_seconds(self) -> float:
        """How long the broker waits for a message to be acknowledged."""
        return SHORT_VISIBILITY_SECONDS if self.scenario is None else CALM_VISIBILITY_SECONDS

    def check(self, settings: Settings) -> None:
        """Raise ConfigurationError if the scenario cannot be played here."""
        missing = missing_packages()
        if self.scenario is None:
            return
        if missing:
            told = f"needs {how_to_install(missing)}"
            raise ConfigurationError(f"--scenario {self.scenario.name}", told)
        if self.scenario.own_redis and settings.redis_url is not None:
            told = f"is set, and --scenario {self.scenario.name} stops no Redis of yours: unset it"
            raise ConfigurationError("IDEMWATCH_REDIS_URL", told)


@dataclass(frozen=True, slots=True)
class Cast:
    """What runs."""

    stage: Stage
    crew: Crew
    ledger: Ledger
    worker: DemoWorker
    watch: Watch
    addresses: Mapping[str, str]


@contextmanager
def assemble(stage: Stage, options: Options, screen: Screen) -> Iterator[Cast]:
    """Start everything but traffic; end it at the end. Raises ProcessFailed."""
    with ExitStack() as stack:
        mail = stack.enter_context(_mail_server(stage.database_url))
        crew = Crew(stage, options.metrics_address, options.visibility_seconds, mail.address)
        stack.callback(crew.close)
        crew.run("migrate")
        ledger = Ledger(stage.database_url, stage.facility_schema)
        stack.callback(ledger.close)
        insert(stage.database_url, fleet())
        screen.say("starting a worker, two beats and the state exporter ...")
        worker = DemoWorker(crew)
        crew.start_beats()
        exporter = crew.listen(
            "exporter", lambda _: {"refresh_seconds": REFRESH_SECONDS}, ready="/-/healthy"
        )
        found = _monitoring(stack, crew, exporter, screen)
        exporter.wait()
        worker.wait()
        if found is not None:
            found.wait()
        addresses = _addresses(worker, exporter, found)
        for name, address in addresses.items():
            screen.say(f"{name}: {address}")
        yield Cast(stage, crew, ledger, worker, Watch(found), addresses)


@contextmanager
def _mail_server(database_url: str) -> Iterator[MailServer]:
    """Writes each mail down that it takes."""
    journal = Journal(database_url)
    server = MailServer(Inbox(lambda mail: journal.write_mail(mail.message_id, mail.subject)))
    try:
        yield server
    finally:
        server.close()
        journal.close()


def _monitoring(
    stack: ExitStack, crew: Crew, exporter: Listening, screen: Screen
) -> Monitoring | None:
    missing = missing_packages()
    if missing:
        screen.say(f"no alerts: for Prometheus and Alertmanager, {how_to_install(missing)}")
        return None
    screen.say("starting Prometheus and Alertmanager ...")
    webhook = Webhook()
    stack.callback(webhook.close)
    return Monitoring(crew, exporter, webhook)


def how_to_install(packages: list[str]) -> str:
    """The command."""
    return f"apt-get install --no-install-recommends {' '.join(packages)}"


def _addresses(worker: DemoWorker, exporter: Listening, found: Monitoring | None) -> dict[str, str]:
    told = {"worker": worker.metrics_url, "state exporter": f"{exporter.url}/metrics"}
    if found is not None:
        told |= {"prometheus": found.prometheus_url, "alertmanager": found.alertmanager_url}
    return told

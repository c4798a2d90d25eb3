"""The rules that findings of `migrate-tasks` name, in the order in which they are told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .task_model import Level


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; `summary` is its headline and `help` says what to do."""

    code: str
    level: Level
    summary: str
    help: str


RULES: Final = {
    rule.code: rule
    for rule in (
        Rule("unprotected-task", Level.WARNING, "A Celery task works once for each delivery",
             "Run `idemwatch migrate-tasks`, or add base=IdempotentTask yourself."),
        Rule("manual-migration", Level.WARNING, "A task that must be migrated by hand",
             "The message says what stands in the way. Change that, or add base=IdempotentTask "
             "yourself."),
        Rule("dynamic-task", Level.WARNING, "A task is made in a way that the source does not tell",
             "Give base=IdempotentTask where it is made, or use a decorator."),
        Rule("unencodable-argument", Level.ERROR, "An argument has no stable form in a key",
             "Pass an id, a date or another plain value in its place."),
        Rule("changing-default", Level.ERROR, "A default is computed when the worker starts",
             "Two workers would give one call two keys. Use None, or pass the value."),
        Rule("mutable-default", Level.WARNING, "A default can be changed by a run",
             "Use None, and make the value in the function."),
        Rule("unknown-argument", Level.NOTE, "An argument's type is not known to be plain",
             "Make sure that it arrives as a plain value, an Enum or a dataclass."),
        Rule("day-inside", Level.WARNING, "The task asks for the day while it runs",
             "A repetition after midnight would be other work. Pass the day as an argument: then "
             "it is part of the key, and a daily task runs once a day however often it is sent."),
        Rule("moment-inside", Level.NOTE, "The task reads a clock while it runs",
             "A repeated attempt reads another time. Where the time decides what is done, pass it "
             "as an argument."),
        Rule("random-inside", Level.NOTE, "The task draws at random while it runs",
             "A repeated attempt draws another value. Draw it where the task is sent, or derive it "
             "from the arguments."),
        Rule("early-acks", Level.WARNING, "The task acknowledges its message early",
             "With acks_late=False a killed worker's message is gone. Take it out, unless the work "
             "may be lost."),
        Rule("no-redelivery", Level.WARNING, "A killed child's message is acknowledged",
             "With reject_on_worker_lost=False the work of a killed child is lost. Take it out."),
        Rule("own-retries", Level.NOTE, "The task has a retry policy of its own",
             "It is kept; those of the category are not added."),
        Rule("several-effects", Level.NOTE, "An attempt can fail between two effects",
             "The next attempt does the first again. Put each into `with "
             "self.idempotency.once(key)`, or those of PostgreSQL into one `transaction(key)`."),
        Rule("ignored-result", Level.NOTE, "The task's result is ignored",
             "Duplicates get the stored result all the same; nothing has to change."),
        Rule("beat-schedule", Level.NOTE, "A beat publishes the task with the same arguments",
             "Each publishing is work of its own, so the key has the message's id. To be safe from "
             "doubled publishing too, use idemwatch's beat or pass the day."),
    )
}  # fmt: skip

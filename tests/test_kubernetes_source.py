"""CronJobs of manifests, and files that are none or mean harm."""

from __future__ import annotations

import builtins
from datetime import timedelta
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from idemwatch.idempotency.errors import ConfigurationError
from idemwatch.scheduler.cron import parse_cron
from idemwatch.scheduler.inventory import Inventory
from idemwatch.scheduler.kubernetes_source import read_manifests
from idemwatch.scheduler.model import DEFAULT_GRACE, Overlap, Schedule, Status
from idemwatch.scheduler.occurrences import Interval, timing_text
from idemwatch.scheduler.place import Place
from idemwatch.scheduler.yaml_nodes import DEEPEST, MOST_ALIASES, MOST_DOCUMENTS, MOST_NODES
from support.placed import assert_placed, problems_of

FULL = """\
# the nightly import
apiVersion: batch/v1
kind: CronJob
metadata:
  name: etl
  namespace: prod
spec:
  schedule: "15 3 * * 1-5"
  timeZone: Europe/London
  suspend: true
  concurrencyPolicy: Forbid
  startingDeadlineSeconds: 300
  jobTemplate:
    spec:
      template:
        spec:
          containers: [{name: etl, image: "registry/etl:7", command: [run, "{{ not.ours }}"]}]
"""


def read(text: str) -> Inventory:
    return read_manifests("m.yaml", text)


def job(name: str = "a", **spec: str) -> str:
    """A document; the values of `spec` are YAML."""
    keys = "".join(
        f"  {key}: {value}\n" for key, value in ({"schedule": "0 5 * * *"} | spec).items()
    )
    return f"apiVersion: batch/v1\nkind: CronJob\nmetadata: {{name: {name}}}\nspec:\n{keys}"


def only(text: str) -> Schedule:
    inventory = read(text)
    assert not inventory.problems
    (found,) = inventory.schedules
    return found


def problem(document: str) -> tuple[int, int, str]:
    """The problem of a document between two that are read, as if it began at line 1."""
    good = job("good")
    inventory = read(f"{good}---\n{document.rstrip()}\n---\n{good}")
    assert [one.id for one in inventory.schedules] == ["good", "good#2"]
    ((line, column, message),) = problems_of(inventory)
    return line - good.count("\n") - 1, column, message


# -- what is read ----------------------------------------------------------------------------------


def test_a_cronjob_is_a_schedule() -> None:
    found = only(FULL)
    assert (found.id, found.name, found.task) == ("prod/etl", "prod/etl", "prod/etl")
    assert found.timing == parse_cron("15 3 * * 1-5", "k8s")
    assert (found.zone, found.status, found.overlap) == (
        "Europe/London",
        Status.PAUSED,
        Overlap.SKIP,
    )
    assert found.misfire_grace == timedelta(minutes=5)
    assert found.place == Place("m.yaml", 8, 13)


def test_what_a_cronjob_leaves_out_is_the_default() -> None:
    found = only(job())
    assert (found.id, found.zone, found.status, found.overlap) == (
        "a", "UTC", Status.PENDING, Overlap.ALLOW,
    )  # fmt: skip
    assert found.misfire_grace == DEFAULT_GRACE
    assert only(job(timeZone="null", suspend="~", concurrencyPolicy="")).zone == "UTC"


@pytest.mark.parametrize(
    ("policy", "overlap"),
    [("Allow", Overlap.ALLOW), ("Forbid", Overlap.SKIP), ("Replace", Overlap.QUEUE_ONE)],
)
def test_a_concurrency_policy_is_the_nearest_overlap(policy: str, overlap: Overlap) -> None:
    assert only(job(concurrencyPolicy=policy)).overlap is overlap


@pytest.mark.parametrize(
    ("flag", "status"), [("false", "PENDING"), ("True", "PAUSED"), ("on", "PAUSED")]
)
def test_suspended_is_paused(flag: str, status: str) -> None:
    assert only(job(suspend=flag)).status == status


def test_two_namespaces_have_two_tasks_of_one_name() -> None:
    inventory = read(f"{FULL}---\n{FULL.replace('prod', 'staging')}")
    assert [one.task for one in inventory.schedules] == ["prod/etl", "staging/etl"]


def test_documents_and_lists_are_read_and_other_kinds_passed_over() -> None:
    text = f"""%YAML 1.1
---
# nothing here
---
{job("a")}
---   # and a list
apiVersion: v1
kind: List
items:
- apiVersion: batch/v1beta1
  kind: CronJob
  metadata: {{name: b}}
  spec: {{schedule: "0 6 * * *"}}
- {{apiVersion: v1, kind: ConfigMap, data: {{x: "{{{{ .Values.x }}}}"}}}}
- {{apiVersion: example.com/v1, kind: CronJob}}
--- {{kind: CronJobList, items: [{{metadata: {{name: c}}, spec: {{schedule: "@daily"}}}}]}}
---
kind: Deployment
spec: {{schedule: no}}
...
"""
    inventory = read(text)
    assert [one.id for one in inventory.schedules] == ["a", "b", "c"] and not inventory.problems
    assert_placed(inventory, text)


def test_anchors_and_merged_keys_are_followed() -> None:
    text = """kind: CronJobList
items:
- metadata: &meta {name: a, namespace: x}
  spec: &spec {schedule: 0 5 * * *, timeZone: Asia/Tokyo, suspend: true}
- metadata: {<<: *meta, name: b}
  spec: {<<: [{suspend: null}, *spec], timeZone: Europe/London}
- metadata: *meta
  spec: *spec
"""
    inventory = read(text)
    found = [(one.id, one.zone, one.active) for one in inventory.schedules]
    assert found == [
        ("x/a", "Asia/Tokyo", False),
        ("x/b", "Europe/London", True),
        ("x/a#2", "Asia/Tokyo", False),
    ]


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("1h30m", 5400), ("90s", 90), ("1.5h", 5400), ("2m0.5s", 120), ("100ms", 1)],
)
def test_every_is_an_interval(written: str, seconds: int) -> None:
    assert only(job(schedule=f'"@every {written}"')).timing == Interval(timedelta(seconds=seconds))


def test_json_and_carriage_returns_are_yaml() -> None:
    text = '{"kind": "CronJob", "metadata": {"name": "a"}, "spec": {"schedule": "0 5 * * *"}}'
    assert only(text).id == "a"
    assert only(FULL.replace("\n", "\r\n")).place == Place("m.yaml", 8, 13)


# -- cronjobs that are wrong -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "column", "part"),
    [
        ({"schedule": "0 25 * * *"}, 13, "hour: 25 is not in 0-23"),
        ({"schedule": "'0 0 5 * * *'"}, 13, "it has 6 fields"),
        ({"schedule": "'0 5 * * 7'"}, 13, "7 is not in 0-6"),
        ({"schedule": "'@reboot'"}, 13, "Kubernetes knows @yearly"),
        ({"schedule": "'@Daily'"}, 13, "in lower case"),
        ({"schedule": "'@every day'"}, 13, "@every 1h30m"),
        ({"schedule": "every 300s"}, 13, "say @every 300s"),
        ({"schedule": "H 5 * * *"}, 13, "Kubernetes knows no H"),
        ({"schedule": "TZ=Asia/Tokyo 0 5 * * *"}, 13, "since 1.29: use spec.timeZone"),
        ({"schedule": "CRON_TZ=UTC 0 5 * * *"}, 13, "since 1.29: use spec.timeZone"),
        ({"schedule": "[0 5 * * *]"}, 13, "schedule must be a string"),
        ({"schedule": "* * * * *"}, 14, "quote a value that begins with *"),
        ({"schedule": "@daily"}, 13, "quote a value that begins with * or @"),
        ({"schedule": '"{{ .Values.x }}"'}, 13, "Helm template"),
        ({"schedule": "{{ .Values.x }}"}, 13, "Helm template"),
        ({"schedule": '{{ .Values.x | default "y" }}'}, 13, "Helm template"),
        ({"schedule": ""}, 3, "it has no schedule"),
        ({"timeZone": "Europe/Lodon"}, 13, "no such IANA zone"),
        ({"timeZone": "''"}, 13, "timeZone is empty"),
        ({"timeZone": "Local"}, 13, "no such IANA zone"),
        ({"suspend": '"true"'}, 12, "without quotes"),
        ({"suspend": "maybe"}, 12, "must be true or false"),
        ({"concurrencyPolicy": "forbid"}, 22, "one of Allow, Forbid, Replace"),
        ({"startingDeadlineSeconds": "soon"}, 28, "'soon' is no number"),
        ({"startingDeadlineSeconds": "-1"}, 28, "'-1' is not from"),
    ],
)
def test_a_wrong_cronjob_is_told_at_its_value(spec: dict[str, str], column: int, part: str) -> None:
    line, found, message = problem(job("x", **spec))
    wrong_line = 5 if "no schedule" in part or "schedule" in spec else 6
    assert (line, found) == (wrong_line, column) and part in message


@pytest.mark.parametrize(
    ("document", "line", "column", "part"),
    [
        ("kind: CronJob\nspec: {}", 1, 1, "it has no metadata"),
        ("kind: CronJob\nmetadata: {}", 2, 11, "it has no name"),
        ("kind: CronJob\nmetadata: {name: a}", 1, 1, "it has no spec"),
        ("kind: CronJob\nmetadata: {name: [a]}", 2, 18, "name must be a string"),
        ("kind: CronJob\nkind: CronJob", 2, 7, "kind is given twice"),
        ("kind: [CronJob]", 1, 7, "kind must be a string"),
        ("kind: List\nitems: 5", 2, 8, "items must be a list"),
        ("replicas: 1", 1, 1, "it has no kind"),
        ("just words", 1, 1, "it has no kind"),
        ("- kind: CronJob", 1, 1, "it has no kind"),
        ("{{- if .Values.on }}\nkind: CronJob\n{{- end }}", 1, 1, "Helm template"),
        ('kind: CronJob\nmetadata:\n  {{- include "x" . }}', 3, 3, "Helm template"),
        ("a: b: c", 1, 5, "no YAML: mapping values are not allowed"),
        ("a: [", 1, 1, "no YAML"),
        ("a: 'b", 1, 1, "no YAML"),
        ("a: b\n\tc: d", 2, 1, "no YAML"),
        ("a: x\x01y", 1, 5, "no YAML: control characters"),
        ("a: *nowhere", 1, 4, "nowhere"),
        ("a: !!python/object/apply:os.getcwd []", 1, 1, "it has no kind"),
    ],
)
def test_a_wrong_document_is_told_where_it_is_wrong_and_the_rest_goes_on(
    document: str, line: int, column: int, part: str
) -> None:
    found = problem(document)
    assert found[0] == line and part in found[2]
    assert found[1] == column or part == "no YAML"


def test_an_item_that_is_wrong_does_not_hide_the_others() -> None:
    good = "{metadata: {name: a}, spec: {schedule: 0 5 * * *}}"
    inventory = read(f"kind: CronJobList\nitems:\n- 5\n- {{kind: []}}\n- {good}\n")
    assert [one.id for one in inventory.schedules] == ["a"]
    assert [one.place.line for one in inventory.problems] == [3, 4]


@pytest.mark.parametrize(
    "text", ["", "\n# c\n", "---\n---\n", "null", "kind: Deployment\n", "kind: List\n"]
)
def test_a_file_without_a_cronjob_is_told(text: str) -> None:
    assert problems_of(read(text)) == [(1, 1, "it has no CronJob")]


def test_a_problem_has_the_name_of_its_cronjob() -> None:
    (found,) = read(FULL.replace("15 3", "15 33")).problems
    assert found.schedule == "prod/etl"


# -- files that mean harm --------------------------------------------------------------------------


def test_aliases_that_multiply_are_never_expanded() -> None:
    levels = "".join(f"l{n}: &l{n} [{','.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 60))
    inventory = read(f"kind: List\nl0: &l0 [x]\n{levels}items: *l59\n")
    assert problems_of(inventory) == [(1, 1, "it has no CronJob")]
    merged = "".join(f"m{n}: &m{n} {{<<: [*m{n - 1}, *m{n - 1}]}}\n" for n in range(1, 400))
    ((_, _, message),) = problems_of(read(f"kind: CronJob\nm0: &m0 {{a: b}}\n{merged}<<: *m399\n"))
    assert message == "it has no metadata"


def test_an_anchor_within_itself_is_read_once() -> None:
    ((_, _, message),) = problems_of(
        read("&a\nkind: CronJob\n<<: *a\nmetadata: {<<: *a}\nspec: *a\n")
    )
    assert message == "it has no name"
    assert problems_of(read("kind: List\nitems: &a [*a, *a]\n")) == [(1, 1, "it has no CronJob")]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[" + "a," * (MOST_NODES + 1) + "]", f"over {MOST_NODES} values"),
        ("a: &a b\nb: [" + "*a," * (MOST_ALIASES + 1) + "]", f"over {MOST_ALIASES} aliases"),
        ("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), f"over {DEEPEST} deep"),
        ("[" * 1_000_000, "nesting depth"),
        ("- " * 100_000 + "a", "deep"),
        ("{a: " * 100_000, "deep"),
    ],
    ids=["nodes", "aliases", "depth", "brackets", "dashes", "braces"],
)
def test_what_is_too_large_is_told_and_the_next_document_is_read(text: str, part: str) -> None:
    inventory = read(f"{text}\n---\n{job()}")
    assert [one.id for one in inventory.schedules] == ["a"]
    ((line, _, message),) = problems_of(inventory)
    assert line <= 2 and part in message


def test_documents_have_a_limit() -> None:
    inventory = read("--- {kind: A}\n" * (MOST_DOCUMENTS + 5))
    assert problems_of(inventory) == [
        (MOST_DOCUMENTS + 1, 1, f"over {MOST_DOCUMENTS} documents: split the file")
    ]


def test_without_pyyaml_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "yaml":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigurationError, match=r'pip install "idemwatch\[web\]"'):
        read(FULL)


# -- any text --------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    ["kind: CronJob\n", "kind: List\nitems:\n- ", "metadata: {name: a}\n", "spec:\n",
     "  schedule: ", "0 5 * * *\n", "@every 1h", "timeZone: UTC\n", "&a ", "*a", "<<: *a\n",
     "{{ x }}", "---\n", "...\n", "!!python/name:os.system ", "!<x> ", "%TAG ! x\n", "|\n", ">-\n",
     "- ", "[", "{", "}", ": ", "? ", "'", '"', "#", " ", "\t", "\r", "\n", "\x85", "\u2028",
     "\ufeff", "\0", "\\ud800"]
)  # fmt: skip
TEXTS = st.one_of(st.text(), st.lists(PIECES | st.text(max_size=4), max_size=25).map("".join))


@settings(deadline=None)
@given(TEXTS)
def test_any_text_is_read_and_each_problem_has_its_line(text: str) -> None:
    inventory = read(text)
    assert_placed(inventory, text)
    assert inventory.schedules or inventory.problems
    for one in inventory.problems:
        assert 1 <= one.place.line <= text.count("\n") + 1 and one.place.column >= 1


@settings(deadline=None)
@given(TEXTS)
def test_any_text_is_read_without_libyaml_too(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(yaml, "CSafeLoader")
        assert_placed(read(text), text)


NAMES = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=9)
FIELD = st.integers(0, 6).map(str) | st.sampled_from(["*", "*/2", "1-5"])
EXPRESSIONS = st.tuples(FIELD, FIELD, st.sampled_from(["*", "1,15"]), st.just("*"), FIELD)


@settings(deadline=None)
@given(st.lists(st.tuples(NAMES, EXPRESSIONS.map(" ".join), st.booleans()), min_size=1, max_size=5))
def test_manifests_that_are_written_read_back_as_the_same_meanings(
    jobs: list[tuple[str, str, bool]],
) -> None:
    written = [
        {"kind": "CronJob", "apiVersion": "batch/v1", "metadata": {"name": f"{name}{number}"},
         "spec": {"schedule": expression, "suspend": suspend}}
        for number, (name, expression, suspend) in enumerate(jobs)
    ]  # fmt: skip
    for text in (yaml.safe_dump_all(written), yaml.safe_dump({"kind": "List", "items": written})):
        inventory = read(text)
        assert not inventory.problems
        found = [(one.id, timing_text(one.timing), not one.active) for one in inventory.schedules]
        assert found == [
            (f"{name}{number}", expression, suspend)
            for number, (name, expression, suspend) in enumerate(jobs)
        ]

"""Which calls have an effect outside the task, by their dotted names.

Names are what `Names.full` makes of them: imported heads are replaced, calls are left out. The
first rule that fits says what kind of effect it is; `named` only guesses by a verb.
"""

from __future__ import annotations

import re
from typing import Final

RULES: Final = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        ("mail", r"(^|\.)(send_mail|send_mass_mail|mail_admins|mail_managers|sendmail)$"),
        ("mail", r"(^|\.)(send|deliver)_\w*(e?mail|sms|reminder|notification|newsletter)\w*$"),
        ("mail", r"(?i)(^|\.)\w*(mail|message|smtp|sms)\w*(\.\w+)*\.(send|send_\w+)$"),
        ("payment", r"^(stripe|braintree|razorpay|mollie|adyen|gocardless_pro|square|paypalrestsdk)"
                    r"\..*\b(create|sale|charge|refund|capture|confirm|execute|cancel|modify|pay)$"),
        ("payment", r"(?i)(^|\.)\w*(pay|gateway|billing|charge|stripe)\w*(\.\w+)*"
                    r"\.(charge|refund|capture|payout|transfer|pay|debit|credit)$"),
        ("payment", r"(^|\.)(charge|refund|capture|payout|debit)(_\w+)?$"),
        ("publish", r"\.(delay|apply_async|send_task|delay_on_commit|apply_async_on_commit)$"),
        ("publish", r"\.(basic_publish|publish|group_send)$"),
        ("http", r"^(requests|httpx)\.(post|put|patch|delete|request)$"),
        ("http", r"^urllib\.request\.urlopen$"),
        ("http", r"^(requests\.[Ss]ession|httpx\.(Async)?Client|aiohttp\.ClientSession)"
                 r"\.(post|put|patch|delete|request|send)$"),
        ("http", r"(^|[._])(session|client|http|api|webhook)\.(post|put|patch)$"),
        ("process", r"^subprocess\.(run|call|check_call|check_output|Popen)$"),
        ("process", r"^os\.(system|popen|spawn\w+|exec\w+)$|(^|\.)call_command$"),
        ("file", r"^os\.(remove|unlink|rename|replace|makedirs|mkdir|rmdir|removedirs|symlink)$"),
        ("file", r"^shutil\.(copy\w*|move|rmtree|make_archive)$|default_storage\.(save|delete)$"),
        ("file", r"\.(write_text|write_bytes|unlink|to_csv|to_excel|to_parquet)$"),
        ("file", r"\.(put_object|upload_file|upload_fileobj|delete_object|upload_from_\w+)$"),
        ("cache", r"(?i)(^|\.)cache\.(set|add|incr|decr|delete|set_many)$"),
        ("cache", r"(?i)(^|\.)\w*redis\w*(\.\w+)*\.(set\w*|incr\w*|decr\w*|[lr]push|sadd|hset|zadd|"
                  r"delete|expire|xadd|hincrby)$"),
        ("database", r"\.a?(save|bulk_create|get_or_create|update_or_create|bulk_update)$"),
        ("database", r"\.(executemany|add_all|(insert|update|delete)_(one|many))$"),
        ("database", r"\.objects(\.\w+)*\.a?(create|update|delete)$"),
        ("database", r"\.(filter|exclude|all|filter_by|select_for_update|query)(\.\w+)*"
                     r"\.a?(update|delete)$"),
        ("database", r"(?i)(^|\.)\w*(session|db|conn|connection|cursor|cur)(\.\w+)*"
                     r"\.(execute|executescript|commit|add|merge|delete)$"),
        ("database", r"\.adelete$|\.delete$"),
        ("named", r"(^|\.)(create|add|close|escalate|send|update|delete|remove|insert|save|store|"
                  r"write|cancel|notify|publish|post|upload|archive|purge|expire|mark|transfer|"
                  r"submit|register|assign|approve|reject|dispatch|deliver|import)_\w+$"),
    )
)  # fmt: skip
EFFECTS: Final = {
    "mail": "sends mail",
    "payment": "moves money",
    "publish": "publishes a task",
    "http": "sends an HTTP request",
    "process": "runs a program",
    "file": "writes a file",
    "cache": "writes to a cache",
    "database": "writes to a database",
    "named": "calls what is named like an effect",
}
DAY: Final = re.compile(
    r"^datetime\.(date|datetime)\.today$|(^|\.)localdate$|(^|\.)(now|today|utcnow|localtime)\.date$"
)
MOMENT: Final = re.compile(
    r"^datetime\.datetime\.(now|utcnow)$|^django\.utils\.timezone\.(now|localtime)$"
    r"|^time\.(time|time_ns)$|^pendulum\.(now|today)$|^arrow\.(now|utcnow)$|(^|\.)timezone\.now$"
)
RANDOM: Final = re.compile(
    r"^(random|secrets|numpy\.random)\.\w+|^uuid\.uuid[14]$|^os\.urandom$|(^|\.)get_random_string$"
)
MODES: Final = frozenset("wax+")
READS: Final = ("select", "show", "explain")
"""How SQL begins that only reads."""


def effect_of(full: str) -> str:
    """The kind of effect that a call of this name has, or nothing."""
    return next((kind for kind, pattern in RULES if pattern.search(full)), "")


def clock_of(full: str) -> str:
    """`day`, `moment` or `random` for a call that gives another answer each time."""
    if DAY.search(full):
        return "day"
    if MOMENT.search(full):
        return "moment"
    return "random" if RANDOM.match(full) or full.endswith(".get_random_string") else ""

"""Cron schedules as a whole: their load, their health, a better plan, and a beat.

Where things are, each building on those before it:

- an expression and its runs: dialects, fields, days, cron, clock, occurrences, lint;
- a schedule: model, config (from a dict), identity (what makes two the same), place, inventory;
- sources of them: sources (the door), *_source, and what helps to read them: celery_timing,
  celery_entry, foreseen, redbeat_rrule, yaml_nodes;
- judging a fleet, pure functions over numpy: load, conflicts, health, starts, capacity;
- planning: shifts (moves that cron can say), pieces, line, strategies, bound, planner, advice,
  recommend; coordinator is their face for plain dicts;
- the table: rows, schedule_store, change_store, table_store, schedule_sql, uniqueness_store,
  changes;
- the beat: due (what is fired), firing, firing_store, firing_sql, outbox, publisher, beat,
  sync_store;
- `validate-schedules`: findings, checks, idempotency_checks, task_checks, validation, remedy,
  report, *_report, patch, validation_run, validate_command;
- `schedules`: schedule_commands, view_commands, change_commands, importing, *_view, bars,
  text_table;
- what the commands share: command_options, command_steps, terminal, exit_codes;
- metrics: gauges, recommendations, improvements (what is recommended).
"""

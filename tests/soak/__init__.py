"""The soak: full load of mixed tasks for long, and whether anything grew, or was lost."""

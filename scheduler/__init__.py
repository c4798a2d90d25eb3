"""Cron schedules as a whole: their load, their health, a better plan, and a beat."""

"""A facility-management Celery app under real duplicates, and the servers that it runs on."""

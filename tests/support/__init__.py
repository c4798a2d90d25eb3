"""What tests share and what is no fixture: a TCP proxy that misbehaves, real Celery workers."""

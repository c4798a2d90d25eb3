"""Grafana boards as code, and their committed JSON. Imports nothing of ours but `alerts`."""

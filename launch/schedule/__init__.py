"""Reindexing at set times: configuration, cron and systemd."""

"""The Airflow room: trigger a dag run, wait for it, read its logs (PROTOCOLS.md, section B)."""

from taskserver.api.airflow.room import airflow_rooms

__all__ = ["airflow_rooms"]

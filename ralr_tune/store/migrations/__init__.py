"""Migrates the tables of an earlier release to those of `tables.py`, step by step; `schema.migrate` runs the steps.

A change of the tables is a new file in `versions/`, and `schema.HEAD` is its number; tests check that creating and
migrating give the same tables. Every step checks what exists: MySQL commits each change of a table at once, so a
migration that was killed restarts in the middle. Steps define tables and types themselves: `tables.py` will change,
the result of a step must not.
"""

"""How the tables of an earlier release become those of `tables.py`, step by step; `schema.migrate` runs the steps.

A change of the tables is a new file in `versions/`, and its number is `schema.HEAD`; tests hold the two ways to the
same tables, making and migrating, together. Every step looks for what is there: MySQL keeps each change of a table at
once, so a migration that was killed begins again in the middle. Steps name tables and types themselves: `tables.py`
goes on, what a step made does not.
"""

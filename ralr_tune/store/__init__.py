"""What a study stores in SQL: its file, its ledger of planned trials, and Optuna's own tables.

The only package with SQL. One database (SQLite, PostgreSQL, MySQL or MariaDB) holds both schemas; workers on any number
of machines coordinate through it alone.
"""

"""What a study remembers, in SQL: its file, its ledger of planned trials, and Optuna's tables beside them.

The only room with SQL. One database (SQLite, PostgreSQL, MySQL or MariaDB) holds both schemas; workers on any number
of machines meet there and nowhere else.
"""

"""The steps, each named for its number; Alembic finds them by this folder."""

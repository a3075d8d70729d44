"""The steps, each named after its number; Alembic finds them in this folder."""

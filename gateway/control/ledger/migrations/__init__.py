"""Versions of the ledger's tables in PostgreSQL, for Alembic."""

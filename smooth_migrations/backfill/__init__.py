"""Fill columns of a large table in batches: an operation for the migrations of a project."""

from smooth_migrations.backfill.operation import Backfill

__all__ = ["Backfill"]

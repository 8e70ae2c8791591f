"""What stands behind `smooth_migrations.fields` and `smooth_migrations.models`."""

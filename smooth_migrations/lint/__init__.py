"""What migration files would do to two releases that are live at once, told without a database."""

"""All migrations, one linear history, in raw SQL: every step can be read, and rolled back."""

"""Command-line entry points; no formula lives here."""

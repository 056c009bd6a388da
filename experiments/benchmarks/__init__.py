"""The rows of ``experiments.benchmark``, a file for each topic, each with a table ``ROWS``."""

"""Slow oracles in plain NumPy, written from the papers; they never import kipjax."""

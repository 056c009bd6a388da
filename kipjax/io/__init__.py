"""Files: the distilled set (artifact), resumable state (checkpoint), experts (trajectory), metrics and progress (log),
pictures of a set (plots), curves of results (charts), sets in the formats of others (interchange, image_folder).

Importing this package is cheap: orbax, matplotlib and rich are imported by the functions that need them.
"""

from kipjax.io import artifact, charts, checkpoint, image_folder, interchange, log, plots, trajectory

__all__ = ["artifact", "charts", "checkpoint", "image_folder", "interchange", "log", "plots", "trajectory"]

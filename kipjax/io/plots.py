"""Pictures of a distilled set."""

"""Figures of a study, one file each: a frozen dataclass whose `draw(record)` gives drawings with their captions."""

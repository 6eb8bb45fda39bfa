"""Tables of a study, one file each: a frozen dataclass whose `sheets(record)` lays finished rows out."""

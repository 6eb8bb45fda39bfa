"""Plan -> Plan: recipes, calibrators and weight transformations."""

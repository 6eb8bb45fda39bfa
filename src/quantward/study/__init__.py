"""Studies: a grid of data, folds, backbones, stages, recipes, targets and runtimes, carried out step by step.

A study file says what; `schema` reads it, `design` turns it into steps with keys, an engine carries them out, a store
keeps what each step left, and `tables` shows it. What decides a step's result is its key, so nothing runs twice.
"""

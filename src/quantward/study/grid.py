"""The rows of a study: which stages, recipes, lessons, targets and runtimes meet, and which row judges which."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from quantward.study.spelling import Filled, filled
from quantward.study.wants import Study, recipe_needs


@dataclass(frozen=True)
class Way:
    """What one row does to one network: how it is trained, made smaller, written and run."""

    stage: str
    recipe: str
    lesson: str
    target: str
    runtime: str

    @property
    def made(self) -> tuple[str, str, str]:
        """What decides the Plan."""
        return self.stage, self.recipe, self.lesson

    @property
    def written(self) -> tuple[str, str, str, str]:
        """What decides the file."""
        return *self.made, self.target

    @property
    def parts(self) -> tuple[str, str, str, str, str]:
        """All of it."""
        return *self.written, self.runtime


def ways(study: Study) -> tuple[Way, ...]:
    """Every row of one data set and network, fp32 of each stage first. Pairs that cannot work are left out, lessons are
    for recipes that train, and a name that several spellings share holds one value in a row."""
    stages, recipes, lessons = (filled(texts, study.vary) for texts in (study.stages, study.recipes, study.lessons))
    pairs, none = study.pairs(), (Filled(""),)
    return tuple(
        Way(stage.text, recipe.text, lesson.text, target, runtime)
        for stage in stages
        for recipe in recipes
        for lesson in (lessons if recipe_needs(recipe.text) == "training" else none)
        if stage.agrees(recipe, lesson)
        for target, runtime in pairs
    )


def wanted(study: Study, data: str, backbone: str, everything: tuple[Way, ...]) -> tuple[Way, ...]:
    """The rows of one data set and network that the study's `skip` does not leave out."""
    if not study.skip:
        return everything
    return tuple(way for way in everything if not _skipped(study, data, backbone, way))


def _skipped(study: Study, data: str, backbone: str, way: Way) -> bool:
    row = {"data": data, "backbone": backbone, "stage": way.stage, "recipe": way.recipe, "lesson": way.lesson,
           "target": way.target, "runtime": way.runtime}  # fmt: skip
    return any(
        all(any(fnmatchcase(row[name], glob) for glob in globs) for name, globs in rule.items()) for rule in study.skip
    )


def baseline(way: Way, rows: tuple[Way, ...]) -> Way | None:
    """Which of the `rows` a row is compared with: FP32 of the same training in the same form, or in its first form
    where FP32 is not in that one. FP32 of a later training is compared with FP32 of the first; that one with none."""
    first = rows[0].stage
    if way.recipe == "fp32" and way.stage == first:
        return None
    stage = first if way.recipe == "fp32" else way.stage
    same = [row for row in rows if row.recipe == "fp32" and row.stage == stage]
    form = [row for row in same if (row.target, row.runtime) == (way.target, way.runtime)]
    return next(iter([*form, *same]), None)

"""The plan of a fit: where each number of the card came from."""

import synthaug
from synthaug.recipe import parse_recipe
from synthaug.training import plan_fit


def plan(family, **generator):
    recipe = parse_recipe(
        {"dataset": {"path": "digits"}, "generator": {"family": family, **generator}, "fit": {"images": 100}}
    )
    return plan_fit(synthaug.open_dataset("digits", "train"), family, recipe)


def test_the_table_names_where_each_number_came_from():
    made = plan("cvae", width=8, sampling="auto")
    constructor = {**made.constructor, "sampling": "neighbours"}
    assert made.preset_table(constructor)["sampling"] == "neighbours (default)"  # nothing was compared
    table = made.preset_table(constructor, {"sampling"})
    assert table["sampling"] == "neighbours (validation rows)" and table["width"] == "8 (the recipe)"
    assert {line.rsplit(" (", 1)[1] for line in table.values()} == {
        "validation rows)", "the recipe)", "the data)", "default)",
    }  # fmt: skip


def test_a_number_left_open_in_the_recipe_is_not_the_recipes():
    made = plan("glow", temperature=None)
    constructor = {**made.constructor, "temperature": 0.8}
    assert made.preset_table(constructor)["temperature"] == "0.8 (default)"
    assert made.preset_table(constructor, ["temperature"])["temperature"] == "0.8 (validation rows)"

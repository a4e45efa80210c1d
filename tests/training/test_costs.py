from synthaug.generators import GENERATORS
from synthaug.training import describe_costs
from synthaug.training.costs import measure_cost


def test_every_family_is_timed_and_counted():
    text = describe_costs([30, 10], 8, 1)
    assert all(name in text for name in GENERATORS) and len(text.splitlines()) == 4
    cost = measure_cost(GENERATORS["cvae"], [30, 10], 8, 1)
    assert cost.images_per_second > 0 and cost.rows == 40
    assert cost.epochs(2.0) == cost.images_per_second * 2 / 40

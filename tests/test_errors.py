"""The error for a misspelt name."""

from udabench.errors import unknown


def test_few_names_are_all_listed():
    assert str(unknown("fruit", "aple", ["pear", "apple"])) == (
        "Unknown fruit 'aple'. Did you mean 'apple'? Known: apple, pear."
    )
    assert str(unknown("fruit", "x", [])) == "Unknown fruit 'x'. Known: none."


def test_of_many_names_the_nearest_are_listed():
    names = [f"row-{number}" for number in range(40)]
    said = str(unknown("preset", "row-3l", names))
    assert "Did you mean 'row-3" in said
    assert "row-31" in said
    assert said.endswith("and 30 others.")

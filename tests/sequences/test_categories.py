"""Classes: one rule for what they are, for exports and masks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_pipestream.sequences.categories import Categories

PERSON, CAR = {"id": 1, "name": "person"}, {"id": 5, "name": "car", "supercategory": "vehicle"}


def test_names_and_numbers():
    classes = Categories([PERSON, CAR])
    assert classes.names == {1: "person", 5: "car"}
    assert classes.numbers == {"person": 1, "car": 5}
    assert list(classes) == [PERSON, CAR]


def test_classes_of_one_name_are_known_by_the_number_of_the_first():
    assert Categories([PERSON, {"id": 2, "name": "person"}]).numbers == {"person": 1}


@pytest.mark.parametrize(
    "value",
    [
        3,
        "cat",
        [3],
        [{"id": 1}],
        [{"name": "cat"}],
        [{"id": True, "name": "cat"}],
        [{"id": [1], "name": "cat"}],
        [{"id": 1.0, "name": "cat"}],
        [{"id": 1, "name": 7}],
        [PERSON, {"id": 1, "name": "cat"}],
    ],
)
def test_what_are_no_classes_is_refused(value):
    with pytest.raises(ValueError, match=r"expected|another number"):
        Categories.of(value)


def test_class_alone_is_a_list_of_it():
    assert list(Categories.of(CAR)) == [CAR]


@pytest.mark.parametrize(
    ("label", "arguments", "number"),
    [
        ("person", {"first": 0}, 1),
        ("dog", {"first": 1}, 6),
        ("dog", {"first": 10}, 10),
        ("dog", {"first": 0, "wanted": 3}, 3),
        ("dog", {"first": 0, "wanted": 5}, 6),
        ("dog", {"first": 0, "wanted": -3}, 6),
        ("dog", {"first": 0, "wanted": True}, 6),
        ("dog", {"first": 0, "taken": frozenset({6})}, 7),
    ],
)
def test_new_class_gets_a_number_that_is_free(label, arguments, number):
    classes = Categories([PERSON, CAR])
    assert classes.with_label(label, **arguments).numbers[label] == number
    assert list(classes) == [PERSON, CAR]


def test_lists_are_merged_unless_one_number_is_of_two_classes():
    both = Categories([PERSON]).merged(Categories([CAR, PERSON]))
    assert list(both) == [PERSON, CAR]
    with pytest.raises(ValueError, match="another number"):
        both.merged(Categories([{"id": 5, "name": "dog"}]))


@given(st.lists(st.text(max_size=3)), st.integers(0, 3))
def test_labels_get_numbers_in_their_order(labels, first):
    classes = Categories()
    for label in labels:
        classes = classes.with_label(label, first)
    assert list(classes.names) == list(range(first, first + len(set(labels))))
    assert list(classes.names.values()) == list(dict.fromkeys(labels))

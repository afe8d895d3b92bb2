"""Columns stand under each other, whatever is in them."""

from indexlm.evals.table import aligned


def test_columns_stand_under_each_other() -> None:
    lines = aligned([["", "a", "long head"], ["row", "12.5 ~", "-"], ["  r", "", ""]]).splitlines()
    assert lines == ["          a  long head", "row  12.5 ~          -", "  r"]

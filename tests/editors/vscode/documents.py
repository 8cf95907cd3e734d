"""Documents in which the embedded model is sure of what comes next, because it stands elsewhere in them."""

from __future__ import annotations

AREA = """\
width = 3
height = 4


def area(width, height):
    return width * height


print(area(width, height))
"""
# Typed at the end of `AREA`, brings up `REST`.
TYPED = "print(area("
REST = "width, height))"

# Typed in the last function, a blank line wants several lines; asked by hand, one line is offered too.
LOAD = """\
def load(path):
    with open(path) as file:
        data = file.read()
        return data


def load_all(paths):
    with open(paths) as file:
        data = file.read()
        return data


def load_other(path):
    with open(path) as file:
"""

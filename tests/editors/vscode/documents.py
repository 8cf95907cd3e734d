"""Documents in which the embedded model predicts the next text surely, because they hold it elsewhere."""

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

# A blank line in the last function is completed with several lines; an explicit request also offers one line.
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

"""What a small shop has in stock, and a few numbers that its owner asks for."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Item:
    """One article on the shelf."""

    name: str
    price: float
    quantity: int

    def value(self) -> float:
        return self.price * self.quantity


@dataclass
class Inventory:
    """All articles of the shop."""

    items: list[Item] = field(default_factory=list[Item])

    def add(self, item: Item) -> None:
        self.items.append(item)

    def find(self, name: str) -> Item | None:
        for item in self.items:
            if item.name == name:
                return item
        return None

    def total_value(self) -> float:
        return sum(item.value() for item in self.items)

    def is_empty(self) -> bool:
        return len(self.items) == 0


def fibonacci(n: int) -> int:
    """Returns the n-th Fibonacci number, counted from zero."""
    if n < 2:
        return n
    return fibonacci(n - 1) + fibonacci(n - 2)


def main() -> None:
    inventory = Inventory()
    inventory.add(Item("tea", 3.5, 12))
    inventory.add(Item("coffee", 8.0, 5))
    print(inventory.total_value())
    print([fibonacci(n) for n in range(10)])


if __name__ == "__main__":
    main()

"""Nodes as source: statements of one operation or a few, in the words of the language that runs them."""

from collections.abc import Sequence

from sdn.compiler.graph import Node, ordered
from sdn.compiler.operations import OPERATIONS

__all__ = ["Writer"]

COMPARISON = 2
"""The precedence of comparisons, which Python chains."""
LONGEST = 60
"""Characters up to which an operand that is used once stands where it is used."""


class Writer:
    """Writes nodes as statements of one language, each once.

    Args:
        language: "python", "numba" or "triton".
        names: what the leaves are called there.
        prefix: of the names of what is computed.
    """

    def __init__(self, language: str, names: dict[str, str], prefix: str = "t") -> None:
        self.language, self.names, self.prefix = language, names, prefix
        self.lines: list[str] = []
        self._text: dict[int, tuple[str, int]] = {}
        self._count = 0

    def name(self, node: Node, text: str) -> None:
        """Let a node have a name of its own."""
        self._text[id(node)] = text, 10

    def write(self, roots: Sequence[Node], more: Sequence[Node] = ()) -> list[str]:
        """Add the statements that the roots need, and return the roots as expressions.

        Args:
            roots: what is to be computed now.
            more: what will be computed later; what both use gets a name.
        """
        needed = ordered(roots)
        uses: dict[int, int] = {}
        for node in ordered([*roots, *more]):
            for arg in node.args:
                uses[id(arg)] = uses.get(id(arg), 0) + 1
        for root in [*roots, *more]:
            uses[id(root)] = uses.get(id(root), 0) + 1
        for node in needed:
            if id(node) in self._text:
                continue
            text, precedence = self._expression(node)
            if node.args and (uses[id(node)] > 1 or len(text) > LONGEST):
                self._count += 1
                self.lines.append(f"{self.prefix}{self._count} = {_bare(text)}")
                text, precedence = f"{self.prefix}{self._count}", 10
            self._text[id(node)] = text, precedence
        return [self._text[id(root)][0] for root in roots]

    def _expression(self, node: Node) -> tuple[str, int]:
        if node.op == "leaf":
            return self.names[node.name], 10
        if node.is_constant:
            return self._constant(node.value), 10
        operation = OPERATIONS[node.op]
        form = getattr(operation, self.language)
        is_infix = operation.precedence < 10 and not form.startswith(("tl.", "divide("))
        precedence = operation.precedence if is_infix else 10
        operands = []
        for place, arg in enumerate(node.args):
            text, inner = self._text[id(arg)]
            leads = place == 0 and form.startswith("{0}") and precedence > COMPARISON
            tight = not is_infix or inner > precedence or (inner == precedence and leads)
            operands.append(text if tight else f"({text})")
        if node.op in ("real", "where"):
            operands.append(self._text[id(_compared(node.args[0]))][0])
        return form.format(*operands), precedence

    def _constant(self, value: float | bool) -> str:
        if isinstance(value, bool):
            return str(value)
        if value != value or value in (float("inf"), float("-inf")):
            word = "nan" if value != value else "inf"
            text = f'float("{word}")' if value != value or value > 0 else f'-float("{word}")'
        else:
            text = repr(value)
        if self.language == "numba":
            return f"F({text})"
        return text if not text.startswith("-") else f"({text})"


def _compared(node: Node) -> Node:
    """A number that a condition looks at, such as ``a`` of ``a > 0``."""
    while node.kind == "bool" and node.args:
        node = next((arg for arg in node.args if not arg.is_constant), node.args[0])
    return node


def _bare(text: str) -> str:
    """An expression without parentheses around all of it."""
    if not text.startswith("(") or not text.endswith(")"):
        return text
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0 and place < len(text) - 1:
            return text
    return text[1:-1]

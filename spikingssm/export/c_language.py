"""Loops in the restricted Python of `spikingssm.streaming.loops`, and steps of neurons, as functions of C99.

What a name is follows from how it is first assigned: whole numbers count and index, all others are float, and what is
read from the array ``p`` is double. A construct that is not known is refused, never guessed.
"""

import ast
from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["HELPERS", "number", "translated"]

INT, FLOAT, DOUBLE = "int", "float", "double"
MATH = {
    "sqrt": "sqrtf", "floor": "floorf", "ceil": "ceilf", "trunc": "truncf", "rint": "rintf", "expm1": "expm1f",
    "log": "logf", "log1p": "log1pf", "sin": "sinf", "cos": "cosf", "tan": "tanf", "erf": "erff", "atan": "atanf",
    "sinh": "sinhf", "cosh": "coshf", "abs": "fabsf",
}  # fmt: skip
"""Functions of ``math``, of numpy and of Python, and those of <math.h>."""
OWN = {
    "exp": "sdn_exp", "exp_of_negative": "sdn_exp_of_negative", "sigmoid": "sdn_sigmoid", "tanh": "sdn_tanh",
    "maximum": "sdn_maximum", "minimum": "sdn_minimum", "sign": "sdn_sign",
}  # fmt: skip
"""Those of `sdn.ops.common.functions_cpu`, and of `HELPERS`."""
HELPERS = """\
/* exp and what is made of it: polynomials that are good to 2 units in the last place, the same on every machine. */
static inline float sdn_exp_of_negative(float z) {
    float shifted = z * 1.4426950408889634f + 12582912.0f;
    float n = shifted - 12582912.0f;
    float r = (z - n * 0.693359375f) + n * 2.1219444005469058e-4f;
    float p = (float)(1.0 / 5040);
    uint32_t bits;
    float power;
    p = p * r + (float)(1.0 / 720);
    p = p * r + (float)(1.0 / 120);
    p = p * r + (float)(1.0 / 24);
    p = p * r + (float)(1.0 / 6);
    p = p * r + 0.5f;
    p = (p * r) * r + r + 1.0f;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits << 23) + 1065353216u;
    memcpy(&power, &bits, sizeof power);
    return z < -87.0f ? 0.0f : p * power;
}
static inline float sdn_exp(float z) {
    float value = sdn_exp_of_negative(z > 88.0f ? 88.0f : z);
    return z > 88.0f ? value * (z * 1e38f) : value;
}
static inline float sdn_sigmoid(float x) {
    float e = sdn_exp_of_negative(-fabsf(x));
    return (x < 0 ? e : 1.0f) / (1.0f + e);
}
static inline float sdn_tanh(float x) {
    float z = x * x, p = -5.70498872745e-3f, e = sdn_exp(-2.0f * fabsf(x)), far;
    p = p * z + 2.06390887954e-2f;
    p = p * z + -5.37397155531e-2f;
    p = p * z + 1.33314422036e-1f;
    p = p * z + -3.33332819422e-1f;
    far = (1.0f - e) / (1.0f + e);
    return fabsf(x) < 0.625f ? x + x * (z * p) : (x < 0 ? -far : far);
}
static inline float sdn_minimum(float a, float b) { return (a > b || b != b) ? b : a; }
static inline float sdn_maximum(float a, float b) { return (a < b || b != b) ? b : a; }
static inline float sdn_sign(float x) { return x > 0 ? 1.0f : (x < 0 ? -1.0f : 0.0f); }
"""
KEYWORDS = frozenset({
    "auto", "break", "case", "char", "const", "continue", "default", "do", "double", "else", "enum", "extern",
    "float", "for", "goto", "if", "inline", "int", "long", "register", "restrict", "return", "short", "signed",
    "sizeof", "static", "struct", "switch", "typedef", "union", "unsigned", "void", "volatile", "while", "main",
})  # fmt: skip
"""Names that a state or a parameter of a neuron may have, and a variable of C may not."""
OPERATORS: dict[type[ast.AST], str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "/", ast.Mod: "%", ast.BitAnd: "&",
    ast.BitOr: "|", ast.Gt: ">", ast.GtE: ">=", ast.Lt: "<", ast.LtE: "<=", ast.Eq: "==", ast.NotEq: "!=",
}  # fmt: skip


def translated(text: str, arrays: Mapping[str, str] = MappingProxyType({})) -> str:
    """A function of Python as one of C, ``static inline``.

    Args:
        text: one ``def``. What has no annotation is an array, or a whole number where it is written in capitals.
        arrays: C types of what is in arrays other than float, by their names, such as ``{"p": "double"}``.

    Raises:
        NotImplementedError: what cannot be said in C; the line is named.
    """
    (node,) = ast.parse(text).body
    if not isinstance(node, ast.FunctionDef):
        raise NotImplementedError(f"no function: {text.splitlines()[0]}")
    stored = {each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)}
    for each in ast.walk(node):
        if isinstance(each, ast.Name) and each.id in stored & KEYWORDS:
            each.id = f"{each.id}_own"
    return _Function(node, _kinds(node, arrays)).text()


def _kinds(node: ast.FunctionDef, arrays: Mapping[str, str]) -> dict[str, str]:
    """C types of the arguments; arrays that nothing is written to are const."""
    stores = [each for each in ast.walk(node) if isinstance(each, ast.Subscript) and isinstance(each.ctx, ast.Store)]
    written = {_name(each.value) for each in stores}
    found = {}
    for arg in node.args.args:
        said = getattr(arg.annotation, "id", None) or ("int" if arg.arg.isupper() else "Array")
        pointer = f"{'' if arg.arg in written else 'const '}{arrays.get(arg.arg, FLOAT)} *"
        found[arg.arg] = pointer if said == "Array" else said
    return found


class _Function:
    """The translation of one function."""

    def __init__(self, node: ast.FunctionDef, kinds: Mapping[str, str]) -> None:
        self.node, self.kinds = node, kinds
        self.types: dict[str, str] = {name: kind for name, kind in kinds.items() if "*" not in kind}
        self.arguments = {*kinds}
        self.lines: list[str] = []
        self.returns = "void"

    def text(self) -> str:
        for statement in self.node.body:
            self._statement(statement, 1)
        declared = []
        for kind in (INT, FLOAT, DOUBLE):
            own = [name for name, found in self.types.items() if found == kind and name not in self.arguments]
            declared += [f"    {kind} {', '.join(own)};\n"] if own else []
        given = ", ".join(_declared(self.kinds[arg.arg], arg.arg) for arg in self.node.args.args)
        body = "".join(f"{line}\n" for line in self.lines)
        unused = "".join(f"    (void){arg.arg};\n" for arg in self.node.args.args if not self._reads(arg.arg))
        return f"static inline {self.returns} {self.node.name}({given}) {{\n{''.join(declared)}{unused}{body}}}\n"

    def _reads(self, name: str) -> bool:
        return any(isinstance(node, ast.Name) and node.id == name for part in self.node.body for node in ast.walk(part))

    def _statement(self, node: ast.stmt, depth: int) -> None:
        indent = "    " * depth
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return  # the docstring
        if isinstance(node, ast.Assign):
            self._assign(node, indent)
        elif isinstance(node, ast.AugAssign):
            sign = OPERATORS[type(node.op)]
            self.lines.append(f"{indent}{self._text(node.target)} {sign}= {_bare(self._text(node.value))};")
        elif isinstance(node, ast.For):
            self._loop(node, depth)
        elif isinstance(node, ast.If) and not node.orelse:
            self.lines.append(f"{indent}if ({_bare(self._text(node.test))}) {{")
            for inner in node.body:
                self._statement(inner, depth + 1)
            self.lines.append(f"{indent}}}")
        elif isinstance(node, ast.Return) and node.value is not None:
            self.returns = self._type(node.value)
            self.lines.append(f"{indent}return {_bare(self._text(node.value))};")
        else:
            raise self._refused(node)

    def _assign(self, node: ast.Assign, indent: str) -> None:
        (target,) = node.targets
        pairs = [(target, node.value)]
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            pairs = list(zip(target.elts, node.value.elts, strict=True))
            written = {each.id for each in target.elts if isinstance(each, ast.Name)}
            for place, value in enumerate(node.value.elts):  # C does them one by one
                used = {each.id for each in ast.walk(value) if isinstance(each, ast.Name)}
                if used & written & {each.id for each in target.elts[:place] if isinstance(each, ast.Name)}:
                    raise self._refused(node)
        for left, right in pairs:
            if isinstance(left, ast.Name):
                known = self.types.setdefault(left.id, self._type(right))
                if known != self._type(right) and (known, self._type(right)) != (FLOAT, INT):
                    raise self._refused(node)
            self.lines.append(f"{indent}{self._text(left)} = {_bare(self._text(right))};")

    def _loop(self, node: ast.For, depth: int) -> None:
        indent, call = "    " * depth, node.iter
        if not (isinstance(node.target, ast.Name) and isinstance(call, ast.Call) and _called(call) == "range"):
            raise self._refused(node)
        name, ends = node.target.id, [_bare(self._text(each)) for each in call.args]
        self.types[name] = INT
        first, last = ("0", ends[0]) if len(ends) == 1 else (ends[0], ends[1])
        self.lines.append(f"{indent}for ({name} = {first}; {name} < {last}; {name}++) {{")
        for inner in node.body:
            self._statement(inner, depth + 1)
        self.lines.append(f"{indent}}}")

    def _type(self, node: ast.expr) -> str:
        if isinstance(node, ast.Constant):
            return INT if isinstance(node.value, (bool, int)) else FLOAT
        if isinstance(node, ast.Name):
            return self.types[node.id]
        if isinstance(node, ast.Subscript):
            return DOUBLE if "double" in self.kinds[_name(node.value)] else FLOAT
        if isinstance(node, (ast.Compare, ast.BoolOp)) or (isinstance(node, ast.UnaryOp) and _is_not(node)):
            return INT
        if isinstance(node, ast.UnaryOp):
            return self._type(node.operand)
        if isinstance(node, ast.IfExp):
            return _wider(self._type(node.body), self._type(node.orelse))
        if isinstance(node, ast.BinOp):
            return FLOAT if isinstance(node.op, ast.Pow) else _wider(self._type(node.left), self._type(node.right))
        if isinstance(node, ast.Call):
            return INT if _called(node) == "int" else FLOAT
        raise self._refused(node)

    def _text(self, node: ast.expr) -> str:
        if isinstance(node, ast.Constant):
            return str(int(node.value)) if isinstance(node.value, (bool, int)) else number(float(node.value))  # type: ignore[arg-type]
        if isinstance(node, ast.Name):
            return node.id if node.id != "TINY" else "SDN_TINY"
        if isinstance(node, ast.Subscript):
            return f"{_name(node.value)}[{_bare(self._text(node.slice))}]"
        if isinstance(node, ast.UnaryOp):
            sign = "!" if _is_not(node) else "-"
            return f"{sign}({self._text(node.operand)})"
        if isinstance(node, ast.BinOp):
            return self._product(node)
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            return f"({self._text(node.left)} {OPERATORS[type(node.ops[0])]} {self._text(node.comparators[0])})"
        if isinstance(node, ast.BoolOp):
            sign = " && " if isinstance(node.op, ast.And) else " || "
            return f"({sign.join(self._text(each) for each in node.values)})"
        if isinstance(node, ast.IfExp):
            return f"({self._text(node.test)} ? {self._text(node.body)} : {self._text(node.orelse)})"
        if isinstance(node, ast.Call):
            return self._call(node)
        raise self._refused(node)

    def _product(self, node: ast.BinOp) -> str:
        left, right = self._text(node.left), self._text(node.right)
        if isinstance(node.op, ast.Pow):
            return f"powf({left}, {right})"
        if isinstance(node.op, ast.FloorDiv) and self._type(node) != INT:
            raise self._refused(node)
        if isinstance(node.op, ast.Div) and self._type(node) == INT:
            raise self._refused(node)
        return f"({left} {OPERATORS[type(node.op)]} {right})"

    def _call(self, node: ast.Call) -> str:
        word = _called(node)
        if word == "float" and isinstance(node.args[0], ast.Constant):
            return "NAN" if node.args[0].value == "nan" else "INFINITY"
        if word in ("F", "int"):
            (inner,) = node.args
            if isinstance(inner, ast.Constant) and word == "F":
                return number(float(inner.value))  # type: ignore[arg-type]
            return f"({FLOAT if word == 'F' else INT})({_bare(self._text(inner))})"
        function = {**MATH, **OWN}.get(word)
        if function is None:
            raise self._refused(node)
        return f"{function}({', '.join(_bare(self._text(each)) for each in node.args)})"

    def _refused(self, node: ast.AST) -> NotImplementedError:
        return NotImplementedError(f"C cannot say this of {self.node.name}: {ast.unparse(node)}")


def number(value: float) -> str:
    """A float32 as C has it, without a digit lost."""
    text = f"{value:.9g}"
    return f"{text}f" if "." in text or "e" in text else f"{text}.0f"


def _bare(text: str) -> str:
    """An expression without parentheses around all of it."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0 and place < len(text) - 1:
            return text
    return text[1:-1] if text.startswith("(") else text


def _declared(kind: str, name: str) -> str:
    return f"{kind}{name}" if kind.endswith("*") else f"{kind} {name}"


def _name(node: ast.expr) -> str:
    if not isinstance(node, ast.Name):
        raise NotImplementedError(f"C cannot say this: {ast.unparse(node)}")
    return node.id


def _called(node: ast.Call) -> str:
    """The function's own name, ``sqrt`` for ``np.sqrt``."""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _is_not(node: ast.UnaryOp) -> bool:
    return isinstance(node.op, ast.Not)


def _wider(one: str, other: str) -> str:
    return max(one, other, key=[INT, FLOAT, DOUBLE].index)

"""One self-contained C99 file of a network's step: float32, no allocation, nothing but the standard headers."""

import inspect
import re
from collections.abc import Iterator

import numpy as np

from sdn import __version__
from spikingssm.export.c_language import HELPERS, number, translated
from spikingssm.streaming.loops import LOOPS
from spikingssm.streaming.plan import Plan

__all__ = ["FLAGS", "c_source", "word_of"]

FLAGS = ("-std=c99", "-O3")
"""For gcc and clang. ISO mode keeps products and sums rounded apart; never ``-ffast-math``, which loses NaN."""
ARRAYS = {"p": "double", "q": "int8_t"}
TEMPLATE = """\
/* {title}: one step of a trained spiking network. Written by sdn-spikingssm {version}; do not edit.
 *
 *     {word}_state state;
 *     {word}_reset(&state);                  rest, once a stream
 *     {word}_step(&state, x, logits);        x[{inputs}] -> logits[{outputs}], after every step
 *
 * Streams of any number, each with a state of its own. state.n counts the spikes of each layer so far.
 * Build it with {flags} and -lm. With -D{macro}_MAIN it is a program: float32 steps from standard input, logits
 * to standard output, spikes by layer and the time of a step to standard error.
{notes} */
#include <math.h>
#include <stdint.h>
#include <string.h>

#define {macro}_INPUTS {inputs}
#define {macro}_OUTPUTS {outputs}
#define {macro}_LAYERS {layers}
#define SDN_TINY 1.17549435e-38f

typedef struct {{
    float s[{s}];    /* states of all layers: {states} */
    double p[{p}];   /* sums over all steps, where the network has a mean: {sums} */
    uint64_t n[{layers}]; /* spikes so far, by layer: {names} */
    float t[{t}];    /* room for one step */
}} {word}_state;

{constants}
{helpers}
{functions}
void {word}_reset({word}_state *state) {{ memset(state, 0, sizeof *state); }}

void {word}_step({word}_state *state, const float *x, float *out) {{
    float *s = state->s, *t = state->t;
    double *p = state->p;
    uint64_t *n = state->n;
    (void)p;
{calls}}}
{main}"""
MAIN = """
#ifdef {macro}_MAIN
#include <stdio.h>
#include <time.h>

int main(void) {{
    static {word}_state state;
    static const char *const names[] = {{{names}}};
    float x[{macro}_INPUTS], out[{macro}_OUTPUTS];
    double seconds = 0;
    unsigned long steps = 0;
    int i;
    {word}_reset(&state);
    while (fread(x, sizeof(float), {macro}_INPUTS, stdin) == {macro}_INPUTS) {{
        clock_t start = clock();
        {word}_step(&state, x, out);
        seconds += (double)(clock() - start) / CLOCKS_PER_SEC;
        steps++;
        if (fwrite(out, sizeof(float), {macro}_OUTPUTS, stdout) != {macro}_OUTPUTS) return 1;
    }}
    for (i = 0; i < {macro}_LAYERS; i++) fprintf(stderr, "%s %llu\\n", names[i], (unsigned long long)state.n[i]);
    fprintf(stderr, "microseconds a step: %.3f\\n", steps ? 1e6 * seconds / (double)steps : 0.0);
    return 0;
}}
#endif
"""


def c_source(plan: Plan, title: str, notes: str = "") -> str:
    """The file.

    Args:
        plan: of the network.
        title: its name, of which the names in C are made: ``digits_step``, ``DIGITS_MAIN``.
        notes: lines for its head, such as how the input is scaled.

    Raises:
        NotImplementedError: a neuron that calls what C has not.
    """
    word = word_of(title)
    macro = word.upper()
    texts = [inspect.getsource(LOOPS[name]) for name in plan.loops()]
    texts += [found.text for found in plan.neurons.values()]
    functions = "\n".join(translated(text, ARRAYS) for text in texts)
    helpers = HELPERS if "sdn_" in functions else ""
    calls = "".join(f"    {call};\n" for call in plan.calls)
    if "s, " not in calls:
        calls = f"    (void)s;\n{calls}"
    states = {array: [f"{name} at {part.start}" for name, part in plan.states.items() if part.array == array]
              for array in "sp"}  # fmt: skip
    about = "".join(f" * {line}\n" for line in notes.replace("*/", "* /").splitlines())
    names = [*plan.layers]
    return TEMPLATE.format(
        title=title.replace("*/", "* /"), version=__version__, word=word, macro=macro, flags=" ".join(FLAGS),
        inputs=plan.d_input, outputs=plan.d_output, layers=max(1, len(names)), names=", ".join(names) or "none",
        states=", ".join(states["s"]) or "none", sums=", ".join(states["p"]) or "none",
        **{array: max(1, plan.sizes[array]) for array in "spt"}, notes=f" *\n{about}" if about else "",
        constants="\n".join(_constants(plan)), helpers=helpers, functions=functions, calls=calls,
        main=MAIN.format(word=word, macro=macro, names=", ".join(f'"{name}"' for name in names)),
    )  # fmt: skip


def word_of(title: str) -> str:
    """A title as a name that C takes: small letters, digits and underscores."""
    word = re.sub(r"\W+", "_", title.lower(), flags=re.ASCII).strip("_") or "network"
    return f"n_{word}" if word[0].isdigit() else word


def _constants(plan: Plan) -> Iterator[str]:
    yield _array("float", "w", plan.weights(), number)
    if plan.sizes["q"]:
        yield _array("int8_t", "q", plan.integers(), lambda value: str(int(value)))


def _array(kind: str, name: str, values: np.ndarray, text: object) -> str:
    said = [text(value) for value in values.tolist()]  # type: ignore[operator]
    lines = [", ".join(said[i : i + 12]) for i in range(0, len(said), 12)] or ["0"]
    body = ",\n    ".join(lines)
    return f"static const {kind} {name}[{max(1, len(said))}] = {{\n    {body}}};\n"

"""Sums of products written with letters. Two operands at a time become one stack of matrix products."""
cimport numpy as np
from bpcore.matmul cimport times_tensor
from bpcore.operand cimport shape_of
from bpcore.shape cimport permuted, reshaped
from bpcore.tensor cimport Tensor, as_tensor

from bpcore.arithmetic import mul
from bpcore.reduce import sum
from bpcore.shape import diagonal

np.import_array()


cdef tuple letters_of(object equation, list operands):
    """The labels of each operand's axes and of the result's. The axes of an ellipsis are labeled ("...", i) from the last."""
    cdef list labels = []
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if len(terms) != len(operands):
        raise RuntimeError(f"einsum: {len(terms)} terms for {len(operands)} operands in {equation!r}")
    widest = 0
    for term, operand in zip(terms, operands):
        names = spelled(term, equation)
        ndim = np.PyArray_NDIM((<Tensor> operand).array)
        if "..." in names:
            extra = ndim - len(names) + 1
            at = names.index("...")
            names[at:at + 1] = [("...", i) for i in range(extra - 1, -1, -1)]
            widest = max(widest, extra)
        if len(names) != ndim:
            raise RuntimeError(f"einsum: term {term!r} of {equation!r} does not fit an operand of {ndim} axes")
        labels.append(names)
    dots = [("...", i) for i in range(widest - 1, -1, -1)]
    if arrow:
        result = spelled(output, equation)
        if "..." in result:
            at = result.index("...")
            result[at:at + 1] = dots
        if len(set(result)) != len(result):
            raise RuntimeError(f"einsum: a letter occurs twice in the output of {equation!r}")
    else:
        every = [name for names in labels for name in names if isinstance(name, str)]
        result = dots + sorted([name for name in set(every) if every.count(name) == 1])
    for name in result:
        if not any([name in names for names in labels]):
            raise RuntimeError(f"einsum: {name!r} of the output of {equation!r} is in no operand")
    return labels, result


cdef list spelled(str term, object equation):
    """The letters of a term; "..." is one of them."""
    head, dots, tail = term.partition("...")
    cdef list names = list(head) + (["..."] if dots else []) + list(tail)
    for name in names:
        if name != "..." and not name.isalpha():
            raise RuntimeError(f"einsum: unexpected {name!r} in {equation!r}")
    return names


cdef str from_lists(tuple args):
    """The equation of PyTorch's other form: operand, list of numbers, operand, list of numbers, ..., result."""
    def word(numbers):
        return "".join(["..." if n is ... else chr(ord("A") + n) if n < 26 else chr(ord("a") + n - 26) for n in numbers])

    equation = ",".join([word(numbers) for numbers in args[1::2]])
    return equation + ("->" + word(args[len(args) - 1]) if len(args) % 2 else "")


cdef tuple without_repeats(Tensor x, list names):
    """Diagonals where a label occurs twice in one operand."""
    names = list(names)
    for name in list(names):
        while names.count(name) > 1:
            first = names.index(name)
            second = names.index(name, first + 1)
            if np.PyArray_DIM(x.array, first) != np.PyArray_DIM(x.array, second):
                raise RuntimeError(f"einsum: the axes {name!r} of one operand differ in size: {shape_of(x.array)}")
            x = diagonal(x, 0, first, second)
            del names[second], names[first]
            names.append(name)
    return x, names


cdef tuple summed(Tensor x, list names, keep):
    """Sum out the labels that nobody else has."""
    axes = [i for i, name in enumerate(names) if name not in keep]
    if not axes:
        return x, names
    return sum(x, axes), [name for name in names if name in keep]


cdef Tensor arranged(Tensor x, list names, list order):
    return permuted(x, tuple([names.index(name) for name in order]))


cdef tuple contracted(Tensor a, list na, Tensor b, list nb, keep):
    """The product of two operands, summed over what only they have."""
    cdef dict sizes = {}
    cdef list shared, batch, inner, left, right
    for x, names in ((a, na), (b, nb)):
        for name, n in zip(names, shape_of((<Tensor> x).array)):
            if sizes.get(name, 1) == 1:
                sizes[name] = n
            elif n != 1 and n != sizes[name]:
                raise RuntimeError(f"einsum: the axes {name!r} have sizes {sizes[name]} and {n}")
    # An axis of size 1 that meets a larger one says nothing.
    lone = [name for name in na if name in nb and a.shape[na.index(name)] == 1 and sizes[name] != 1]
    a, na = squeezed(a, na, lone)
    lone = [name for name in nb if name in na and b.shape[nb.index(name)] == 1 and sizes[name] != 1]
    b, nb = squeezed(b, nb, lone)
    a, na = summed(a, na, set(nb) | keep)
    b, nb = summed(b, nb, set(na) | keep)
    shared = [name for name in na if name in nb]
    batch = [name for name in shared if name in keep]
    inner = [name for name in shared if name not in keep]
    left = [name for name in na if name not in nb]
    right = [name for name in nb if name not in na]
    a, b = arranged(a, na, batch + left + inner), arranged(b, nb, batch + inner + right)
    names = batch + left + right
    shape = tuple([sizes[name] for name in names])
    rows, depth, columns = product(left, sizes), product(inner, sizes), product(right, sizes)
    if not inner:
        a = reshaped(a, tuple([sizes[name] for name in batch + left]) + (1,) * len(right))
        b = reshaped(b, tuple([sizes[name] for name in batch]) + (1,) * len(left) + tuple([sizes[name] for name in right]))
        return mul(a, b), names
    lead = (product(batch, sizes),) if batch else ()
    c = times_tensor(reshaped(a, lead + (rows, depth)), reshaped(b, lead + (depth, columns)))
    return reshaped(c, shape), names


cdef tuple squeezed(Tensor x, list names, list lone):
    if not lone:
        return x, names
    rest = [i for i, name in enumerate(names) if name not in lone]
    return reshaped(x, tuple([x.shape[i] for i in rest])), [names[i] for i in rest]


cdef Py_ssize_t product(list names, dict sizes):
    cdef Py_ssize_t n = 1
    for name in names:
        n *= sizes[name]
    return n


def einsum(equation, *operands):
    """The sum of products over the letters that `equation` does not name behind `->`, as in `"bij,bjk->bik"`. Operands are
    taken from left to right. Also `einsum(op1, [0, 1], op2, [1, 2], [0, 2])`."""
    cdef Tensor x
    if not isinstance(equation, str):
        args = (equation, *operands)
        equation, operands = from_lists(args), args[:len(args) - len(args) % 2:2]
    if len(operands) == 1 and isinstance(operands[0], (tuple, list)):
        operands = operands[0]
    tensors = [as_tensor(t, f"operands[{i}]") for i, t in enumerate(operands)]
    if not tensors:
        raise RuntimeError("einsum: expected at least one operand")
    labels, result = letters_of(equation, tensors)
    parts = [without_repeats(x, names) for x, names in zip(tensors, labels)]
    x, names = parts[0]
    for i in range(1, len(parts)):
        later = set(result)
        for _, others in parts[i + 1:]:
            later |= set(others)
        x, names = contracted(x, names, parts[i][0], parts[i][1], later)
    x, names = summed(x, names, set(result))
    return arranged(x, names, result)

"""The methods of `bpnn.Tensor` that are operators: each line binds one of bpcore's functions under PyTorch's name.

`x.add(y)` is `bpcore.arithmetic.add(x, y)`, so the documentation of a method is that of the function.
"""
from bpcore import (
    activation, arithmetic, combine, compare, elementwise, index, join, order, power, reduce, rounding, shape, statistics,
)
from bpcore import gather as elements
from bpcore import matmul as products
from bpcore import repeat as repeating
from bpcore import softmax as normalized
from bpcore.tensor import Tensor as Core
from bpnn import composed


class Methods:
    """Operators as methods; see the functions for what they do."""

    __slots__ = ()
    __array_priority__ = 1000      # an ndarray on the left leaves the operation to us

    # arithmetic
    add = __add__ = __radd__ = arithmetic.add
    sub = subtract = __sub__ = arithmetic.sub
    __rsub__ = arithmetic.rsub
    mul = multiply = __mul__ = __rmul__ = arithmetic.mul
    div = divide = true_divide = __truediv__ = arithmetic.div
    __rtruediv__ = arithmetic.rdiv
    neg = negative = __neg__ = arithmetic.neg
    positive = __pos__ = arithmetic.positive
    floor_divide = __floordiv__ = arithmetic.floor_divide
    __rfloordiv__ = arithmetic.rfloor_divide
    remainder = __mod__ = arithmetic.remainder
    __rmod__ = arithmetic.rremainder
    fmod = arithmetic.fmod
    pow = __pow__ = power.pow
    __rpow__ = power.rpow
    float_power = power.float_power

    # comparison, logic, bits
    eq = compare.eq
    ne = not_equal = compare.ne
    lt = less = __lt__ = compare.lt
    le = less_equal = __le__ = compare.le
    gt = greater = __gt__ = compare.gt
    ge = greater_equal = __ge__ = compare.ge
    __eq__ = compare.eq_or_other
    __ne__ = compare.ne_or_other
    __hash__ = Core.__hash__
    equal = compare.equal
    isclose = compare.isclose
    allclose = compare.allclose
    logical_and = compare.logical_and
    logical_or = compare.logical_or
    logical_xor = compare.logical_xor
    logical_not = compare.logical_not
    bitwise_and = __and__ = __rand__ = compare.bitwise_and
    bitwise_or = __or__ = __ror__ = compare.bitwise_or
    bitwise_xor = __xor__ = __rxor__ = compare.bitwise_xor
    bitwise_not = __invert__ = compare.bitwise_not
    bitwise_left_shift = __lshift__ = compare.bitwise_left_shift
    bitwise_right_shift = __rshift__ = compare.bitwise_right_shift
    isnan = compare.isnan
    isinf = compare.isinf
    isfinite = compare.isfinite
    isposinf = compare.isposinf
    isneginf = compare.isneginf
    isreal = compare.isreal
    signbit = compare.signbit

    # functions of one tensor
    abs = absolute = __abs__ = rounding.abs
    sign = rounding.sign
    exp = elementwise.exp
    exp2 = elementwise.exp2
    expm1 = elementwise.expm1
    log = elementwise.log
    log2 = elementwise.log2
    log10 = elementwise.log10
    log1p = elementwise.log1p
    logit = elementwise.logit
    square = elementwise.square
    sqrt = elementwise.sqrt
    rsqrt = elementwise.rsqrt
    reciprocal = elementwise.reciprocal
    sin = elementwise.sin
    cos = elementwise.cos
    tan = elementwise.tan
    asin = arcsin = elementwise.asin
    acos = arccos = elementwise.acos
    atan = arctan = elementwise.atan
    sinh = elementwise.sinh
    cosh = elementwise.cosh
    asinh = arcsinh = elementwise.asinh
    acosh = arccosh = elementwise.acosh
    atanh = arctanh = elementwise.atanh
    erf = elementwise.erf
    erfc = elementwise.erfc
    erfinv = elementwise.erfinv
    floor = rounding.floor
    ceil = rounding.ceil
    trunc = fix = rounding.trunc
    round = rounding.round
    frac = rounding.frac
    nan_to_num = rounding.nan_to_num
    deg2rad = elementwise.deg2rad
    rad2deg = elementwise.rad2deg
    relu = activation.relu
    sigmoid = activation.sigmoid
    tanh = activation.tanh
    log_softmax = normalized.log_softmax
    softmax = normalized.softmax

    # functions of two and three tensors
    maximum = combine.maximum
    minimum = combine.minimum
    fmax = combine.fmax
    fmin = combine.fmin
    clamp = clip = combine.clamp
    clamp_min = combine.clamp_min
    clamp_max = combine.clamp_max
    lerp = combine.lerp
    addcmul = combine.addcmul
    addcdiv = combine.addcdiv
    atan2 = arctan2 = combine.atan2
    hypot = combine.hypot
    logaddexp = combine.logaddexp
    logaddexp2 = combine.logaddexp2
    copysign = combine.copysign
    xlogy = combine.xlogy

    # reductions
    sum = reduce.sum
    mean = reduce.mean
    max = reduce.max
    min = reduce.min
    amax = reduce.amax
    amin = reduce.amin
    aminmax = reduce.aminmax
    argmax = reduce.argmax
    argmin = reduce.argmin
    prod = statistics.prod
    var = statistics.var
    std = statistics.std
    norm = statistics.norm
    logsumexp = statistics.logsumexp
    all = statistics.all
    any = statistics.any
    count_nonzero = statistics.count_nonzero
    nansum = statistics.nansum
    nanmean = statistics.nanmean

    # order
    sort = order.sort
    argsort = order.argsort
    msort = order.msort
    topk = order.topk
    median = order.median
    nanmedian = order.nanmedian
    kthvalue = order.kthvalue
    unique = order.unique
    cumsum = order.cumsum
    cumprod = order.cumprod
    cummax = order.cummax
    cummin = order.cummin

    # shape
    reshape = shape.reshape
    view = shape.view
    view_as = shape.view_as
    reshape_as = shape.reshape_as
    flatten = shape.flatten
    unflatten = shape.unflatten
    ravel = shape.ravel
    unsqueeze = shape.unsqueeze
    squeeze = shape.squeeze
    permute = shape.permute
    transpose = swapaxes = swapdims = shape.transpose
    t = shape.t
    T = property(shape.reverse_axes)
    mT = property(shape.adjoint)
    movedim = moveaxis = shape.movedim
    expand = shape.expand
    expand_as = shape.expand_as
    broadcast_to = shape.broadcast_to
    narrow = shape.narrow
    select = shape.select
    diagonal = shape.diagonal
    clone = shape.clone
    contiguous = shape.contiguous
    split = join.split
    chunk = join.chunk
    tensor_split = join.tensor_split
    hsplit = join.hsplit
    vsplit = join.vsplit
    dsplit = join.dsplit
    unbind = join.unbind
    repeat = repeating.repeat
    tile = repeating.tile
    repeat_interleave = repeating.repeat_interleave
    flip = repeating.flip
    fliplr = repeating.fliplr
    flipud = repeating.flipud
    roll = repeating.roll
    tril = repeating.tril
    triu = repeating.triu
    diag = repeating.diag
    diag_embed = repeating.diag_embed

    # elements
    __getitem__ = index.getitem
    __setitem__ = index.setitem
    index_select = elements.index_select
    gather = elements.gather
    take = elements.take
    take_along_dim = elements.take_along_dim
    masked_select = elements.masked_select
    nonzero = elements.nonzero
    argwhere = elements.argwhere
    masked_fill = elements.masked_fill
    masked_scatter = elements.masked_scatter
    scatter = elements.scatter
    scatter_add = elements.scatter_add
    index_add = elements.index_add
    index_copy = elements.index_copy
    index_fill = elements.index_fill
    index_put = elements.index_put
    where = combine.where_self

    # products
    matmul = __matmul__ = products.matmul
    __rmatmul__ = products.rmatmul
    mm = products.mm
    bmm = products.bmm
    mv = products.mv
    dot = products.dot
    inner = products.inner
    outer = ger = products.outer
    addmm = products.addmm
    addmv = products.addmv
    addr = products.addr
    baddbmm = products.baddbmm
    addbmm = products.addbmm

    # composed
    bincount = composed.bincount
    cross = composed.cross
    diagflat = composed.diagflat
    diff = composed.diff
    dist = composed.dist
    histc = composed.histc
    kron = composed.kron
    rot90 = composed.rot90
    scatter_reduce = composed.scatter_reduce
    select_scatter = composed.select_scatter
    sinc = composed.sinc
    slice_scatter = composed.slice_scatter

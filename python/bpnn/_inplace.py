"""The methods of `bpnn.Tensor` that change it in place; PyTorch's names end in an underscore."""
from bpcore import activation, arithmetic, combine, compare, elementwise, inplace, order, power, repeat, rounding
from bpcore import gather as elements
from bpcore import matmul as products
from bpcore.inplace import change


def in_place(function):
    """The method that replaces a tensor by `function` of it."""

    def method(self, *args, **keywords):
        return change(self, function, *args, **keywords)

    method.__name__ = function.__name__ + "_"
    method.__doc__ = f"`{function.__name__}` in place."
    return method


class InPlace:
    """In-place operators. On the tape the tensor takes over the history of its new content."""

    __slots__ = ()

    add_ = __iadd__ = inplace.add_
    sub_ = subtract_ = __isub__ = inplace.sub_
    mul_ = multiply_ = __imul__ = inplace.mul_
    div_ = divide_ = true_divide_ = __itruediv__ = inplace.div_
    zero_ = inplace.zero_
    fill_ = inplace.fill_
    copy_ = inplace.copy_
    uniform_ = inplace.uniform_
    normal_ = inplace.normal_
    bernoulli_ = inplace.bernoulli_
    exponential_ = inplace.exponential_
    random_ = inplace.random_


    # arithmetic
    neg_ = negative_ = in_place(arithmetic.neg)
    remainder_ = __imod__ = in_place(arithmetic.remainder)
    fmod_ = in_place(arithmetic.fmod)
    floor_divide_ = __ifloordiv__ = in_place(arithmetic.floor_divide)
    pow_ = __ipow__ = in_place(power.pow)
    float_power_ = in_place(power.float_power)

    # comparison, logic, bits
    eq_ = in_place(compare.eq)
    ne_ = not_equal_ = in_place(compare.ne)
    lt_ = less_ = in_place(compare.lt)
    le_ = less_equal_ = in_place(compare.le)
    gt_ = greater_ = in_place(compare.gt)
    ge_ = greater_equal_ = in_place(compare.ge)
    logical_and_ = in_place(compare.logical_and)
    logical_or_ = in_place(compare.logical_or)
    logical_xor_ = in_place(compare.logical_xor)
    logical_not_ = in_place(compare.logical_not)
    bitwise_and_ = __iand__ = in_place(compare.bitwise_and)
    bitwise_or_ = __ior__ = in_place(compare.bitwise_or)
    bitwise_xor_ = __ixor__ = in_place(compare.bitwise_xor)
    bitwise_not_ = in_place(compare.bitwise_not)
    bitwise_left_shift_ = __ilshift__ = in_place(compare.bitwise_left_shift)
    bitwise_right_shift_ = __irshift__ = in_place(compare.bitwise_right_shift)

    # functions of one tensor
    relu_ = in_place(activation.relu)
    sigmoid_ = in_place(activation.sigmoid)
    tanh_ = in_place(activation.tanh)
    abs_ = absolute_ = in_place(rounding.abs)
    sign_ = in_place(rounding.sign)
    exp_ = in_place(elementwise.exp)
    exp2_ = in_place(elementwise.exp2)
    expm1_ = in_place(elementwise.expm1)
    log_ = in_place(elementwise.log)
    log2_ = in_place(elementwise.log2)
    log10_ = in_place(elementwise.log10)
    log1p_ = in_place(elementwise.log1p)
    logit_ = in_place(elementwise.logit)
    square_ = in_place(elementwise.square)
    sqrt_ = in_place(elementwise.sqrt)
    rsqrt_ = in_place(elementwise.rsqrt)
    reciprocal_ = in_place(elementwise.reciprocal)
    sin_ = in_place(elementwise.sin)
    cos_ = in_place(elementwise.cos)
    tan_ = in_place(elementwise.tan)
    asin_ = arcsin_ = in_place(elementwise.asin)
    acos_ = arccos_ = in_place(elementwise.acos)
    atan_ = arctan_ = in_place(elementwise.atan)
    sinh_ = in_place(elementwise.sinh)
    cosh_ = in_place(elementwise.cosh)
    asinh_ = arcsinh_ = in_place(elementwise.asinh)
    acosh_ = arccosh_ = in_place(elementwise.acosh)
    atanh_ = arctanh_ = in_place(elementwise.atanh)
    erf_ = in_place(elementwise.erf)
    erfc_ = in_place(elementwise.erfc)
    erfinv_ = in_place(elementwise.erfinv)
    floor_ = in_place(rounding.floor)
    ceil_ = in_place(rounding.ceil)
    trunc_ = fix_ = in_place(rounding.trunc)
    round_ = in_place(rounding.round)
    frac_ = in_place(rounding.frac)
    nan_to_num_ = in_place(rounding.nan_to_num)
    deg2rad_ = in_place(elementwise.deg2rad)
    rad2deg_ = in_place(elementwise.rad2deg)

    # functions of several tensors
    clamp_ = clip_ = in_place(combine.clamp)
    clamp_min_ = in_place(combine.clamp_min)
    clamp_max_ = in_place(combine.clamp_max)
    lerp_ = in_place(combine.lerp)
    addcmul_ = in_place(combine.addcmul)
    addcdiv_ = in_place(combine.addcdiv)
    atan2_ = arctan2_ = in_place(combine.atan2)
    hypot_ = in_place(combine.hypot)
    copysign_ = in_place(combine.copysign)
    xlogy_ = in_place(combine.xlogy)

    # position
    tril_ = in_place(repeat.tril)
    triu_ = in_place(repeat.triu)
    cumsum_ = in_place(order.cumsum)
    cumprod_ = in_place(order.cumprod)

    # elements
    masked_fill_ = in_place(elements.masked_fill)
    masked_scatter_ = in_place(elements.masked_scatter)
    scatter_ = in_place(elements.scatter)
    scatter_add_ = in_place(elements.scatter_add)
    index_add_ = in_place(elements.index_add)
    index_copy_ = in_place(elements.index_copy)
    index_fill_ = in_place(elements.index_fill)
    index_put_ = in_place(elements.index_put)

    # products
    addmm_ = in_place(products.addmm)
    addmv_ = in_place(products.addmv)
    addr_ = in_place(products.addr)
    baddbmm_ = in_place(products.baddbmm)
    addbmm_ = in_place(products.addbmm)

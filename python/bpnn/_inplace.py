"""The methods of `bpnn.Tensor` that change it in place; PyTorch's names end in an underscore."""
from bpcore import arithmetic, combine, elementwise, inplace, power
from bpcore.inplace import change


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

    def pow_(self, exponent):
        """`pow` in place."""
        return change(self, power.pow, exponent)

    __ipow__ = pow_

    def neg_(self):
        """`neg` in place."""
        return change(self, arithmetic.neg)

    def exp_(self):
        """`exp` in place."""
        return change(self, elementwise.exp)

    def sqrt_(self):
        """`sqrt` in place."""
        return change(self, elementwise.sqrt)

    def clamp_(self, min=None, max=None):
        """`clamp` in place."""
        return change(self, combine.clamp, min, max)

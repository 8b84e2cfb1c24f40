# Types of results.
cdef bint is_number(object value)                # a Python or NumPy scalar
cdef int category(int typenum) noexcept          # 0 bool, 1 integers, 2 floats, 3 complex
cdef int promoted(tuple values) except -2        # of tensors and numbers
cdef int float_type(int typenum)                 # floats stay, integers become the default float

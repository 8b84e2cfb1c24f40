"""The one door to randomness: a generator of one known algorithm (Philox), whose state can be read and set.

Whole arrays are drawn through NumPy's `Generator`. Kernels that need a random number at each position (dropout) draw one seed here
and count positions themselves, so their bits do not depend on the number of threads.
"""
import os

import numpy


class Generator:
    """A source of random numbers with a state of its own.

    >>> from bpcore.random import Generator
    >>> a, b = Generator().manual_seed(1), Generator().manual_seed(1)
    >>> bool((a.numpy.random(3) == b.numpy.random(3)).all())
    True
    """

    def __init__(self, device="cpu"):
        if str(device) != "cpu":
            raise ValueError(f"device: expected 'cpu', got {device!r}")
        self.manual_seed(67280421310721)

    @property
    def device(self):
        """Always `"cpu"`."""
        return "cpu"

    def manual_seed(self, seed):
        """Start over from `seed`, an integer (negative ones count from 2**64); returns the generator."""
        if not isinstance(seed, (int, numpy.integer)) or isinstance(seed, bool):
            raise TypeError(f"seed: expected an integer, got {type(seed).__name__}")
        seed = int(seed)
        if not -(2**63) <= seed < 2**64:
            raise ValueError(f"seed: expected an integer of 64 bits, got {seed}")
        self._seed = seed % 2**64
        self._bits = numpy.random.Philox(self._seed)
        self.numpy = numpy.random.Generator(self._bits)
        return self

    def initial_seed(self):
        """The seed it was last started from."""
        return self._seed

    def seed(self):
        """Start over from a seed of the operating system; returns it."""
        self.manual_seed(int.from_bytes(os.urandom(8), "little"))
        return self._seed

    def next_seed(self):
        """A fresh 64-bit integer: the key of a kernel's own counter-based stream."""
        return self._bits.random_raw()

    def get_state(self):
        """The state as 14 unsigned 64-bit integers (an ndarray)."""
        state = self._bits.state
        words = [
            self._seed, *state["state"]["counter"], *state["state"]["key"], *state["buffer"],
            state["buffer_pos"], state["has_uint32"], state["uinteger"],
        ]
        return numpy.array([int(word) for word in words], numpy.uint64)

    def set_state(self, state):
        """Continue from what `get_state` returned. Raises `ValueError` for anything else."""
        state = numpy.asarray(state)
        if state.shape != (14,) or state.dtype != numpy.uint64:
            raise ValueError(f"state: expected 14 unsigned 64-bit integers, got shape {state.shape} of {state.dtype}")
        if state[11] > 4 or state[12] > 1 or state[13] >= 2**32:
            raise ValueError("state: not a state of this generator")
        self.manual_seed(int(state[0]))
        self._bits.state = {
            "bit_generator": "Philox",
            "state": {"counter": state[1:5].copy(), "key": state[5:7].copy()},
            "buffer": state[7:11].copy(),
            "buffer_pos": int(state[11]),
            "has_uint32": int(state[12]),
            "uinteger": int(state[13]),
        }


_default = None


def default_generator():
    """The generator behind every random function that is not given one."""
    global _default
    if _default is None:
        _default = Generator()
        _default.seed()
    return _default


def generator(given=None):
    """The NumPy generator to draw from: that of `given`, else of the default one."""
    if given is None:
        return default_generator().numpy
    if not isinstance(given, Generator):
        raise TypeError(f"generator: expected bpnn.Generator or None, got {type(given).__name__}")
    return given.numpy


def next_seed():
    """A fresh 64-bit integer from the default generator."""
    return default_generator().next_seed()

"""The seed and the state of the default generator."""
from bpcore.random import Generator, default_generator
from bpcore.tensor import Tensor, from_array

__all__ = ["Generator", "get_rng_state", "initial_seed", "manual_seed", "seed", "set_rng_state"]


def manual_seed(seed):
    """Start the default generator over from `seed`; the same seed gives the same numbers. Returns the generator."""
    return default_generator().manual_seed(seed)


def seed():
    """Start the default generator over from a seed of the operating system; returns it."""
    return default_generator().seed()


def initial_seed():
    """The seed that the default generator was last started from."""
    return default_generator().initial_seed()


def get_rng_state():
    """The state of the default generator, an int64 Tensor; `set_rng_state` continues from it."""
    return from_array(default_generator().get_state().view("int64"))


def set_rng_state(new_state):
    """Continue the default generator from a state of `get_rng_state`. Raises `ValueError` for anything else."""
    array = new_state._array if isinstance(new_state, Tensor) else new_state
    if getattr(array, "dtype", None) != "int64":
        raise ValueError("new_state: expected a state from get_rng_state()")
    default_generator().set_state(array.view("uint64"))

"""Recurrent networks and their cells."""
import math
import warnings
from numbers import Real

import bpnn
from bpcore import recurrent
from bpnn.creation import empty
from bpnn.nn import functional as F
from bpnn.nn import init
from bpnn.nn.modules.module import Module
from bpnn.nn.parameter import Parameter
from bpnn.nn.utils.rnn import PackedSequence


def _check_sizes(**sizes):
    for name, value in sizes.items():
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name}: expected an int, got {type(value).__name__}")
        if value <= 0:
            raise ValueError(f"{name}: expected 1 or more, got {value}")


def _check_bools(**values):
    for name, value in values.items():
        if not isinstance(value, bool):
            raise TypeError(f"{name}: expected a bool, got {type(value).__name__}")


def _draw(module):
    """All parameters uniform in ±1/sqrt(hidden_size)."""
    bound = 1 / math.sqrt(module.hidden_size)
    for parameter in module.parameters():
        init.uniform_(parameter, -bound, bound)


class RNNBase(Module):
    """What `RNN`, `LSTM` and `GRU` share: parameters, layers, directions, packed sequences."""

    def __init__(self, mode, gates, input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size,
                 device, dtype):
        super().__init__()
        _check_sizes(input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
        _check_bools(bias=bias, batch_first=batch_first)
        if not isinstance(dropout, Real) or isinstance(dropout, bool) or not 0 <= dropout <= 1:
            raise ValueError(f"dropout: expected a probability between 0 and 1, got {dropout!r}")
        if not 0 <= proj_size < hidden_size:
            raise ValueError(f"proj_size: expected 0 (none) up to less than hidden_size, {hidden_size}, got {proj_size}")
        if dropout > 0 and num_layers == 1:
            warnings.warn(f"dropout={dropout} acts between layers and num_layers is 1: nothing is dropped", stacklevel=3)
        self.mode = mode
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout = bias, batch_first, float(dropout)
        self.bidirectional, self.proj_size = bool(bidirectional), proj_size
        directions, state = 2 if bidirectional else 1, proj_size or hidden_size
        self._all_weights = []
        for layer in range(num_layers):
            width = input_size if layer == 0 else state * directions
            for suffix in ("", "_reverse")[:directions]:
                shapes = {"weight_ih": (gates * hidden_size, width), "weight_hh": (gates * hidden_size, state)}
                if bias:
                    shapes |= {"bias_ih": (gates * hidden_size,), "bias_hh": (gates * hidden_size,)}
                if proj_size:
                    shapes["weight_hr"] = (proj_size, hidden_size)
                names = []
                for kind, shape in shapes.items():
                    names.append(f"{kind}_l{layer}{suffix}")
                    setattr(self, names[-1], Parameter(empty(shape, dtype=dtype, device=device)))
                self._all_weights.append(names)
        self.reset_parameters()

    def reset_parameters(self):
        """Draw the weights anew."""
        _draw(self)

    def flatten_parameters(self):
        """Nothing: weights are packed when they are used."""

    @property
    def all_weights(self):
        """The parameters, a list for each layer and direction."""
        return [[getattr(self, name) for name in names] for names in self._all_weights]

    def _weights(self, layer):
        """A layer's parameters as the core wants them, a tuple for each direction."""
        directions = 2 if self.bidirectional else 1
        rows = []
        for names in self._all_weights[directions * layer:directions * (layer + 1)]:
            values = [getattr(self, name) for name in names]
            biases = values[2:4] if self.bias else (None, None)
            rows.append((*values[:2], *biases, values[-1] if self.proj_size else None))
        return rows

    def _check_input(self, input, packed):
        name = type(self).__name__
        if packed and input.ndim != 2:
            raise RuntimeError(f"{name} input: expected packed data of shape (N, {self.input_size}), got {input.shape}")
        if not packed and input.ndim not in (2, 3):
            raise ValueError(f"{name} input: expected 2 axes (one sequence) or 3 (a batch), got shape {input.shape}")
        if input.shape[-1] != self.input_size:
            raise RuntimeError(f"{name} input: expected shape (*, {self.input_size}), the input_size, got {input.shape}")
        dtype = self._parameters[self._all_weights[0][0]].dtype
        if input.dtype != dtype:
            raise ValueError(f"{name} input: expected the dtype of the weights, {dtype}, got {input.dtype}")

    def _check_state(self, state, name, width, batch, batched):
        layers = self.num_layers * (2 if self.bidirectional else 1)
        expected = (layers, batch, width) if batched else (layers, width)
        if state.shape != expected:
            raise RuntimeError(f"{type(self).__name__} {name}: expected shape {expected}, got {state.shape}")

    def _run(self, input, states, names):
        """Output and last states of all layers; `states`: the first ones, Tensors of the `names`, or None."""
        packed = isinstance(input, PackedSequence)
        data = input.data if packed else input
        self._check_input(data, packed)
        batched = packed or data.ndim == 3
        batch_dim = 0 if self.batch_first else 1
        if packed:
            batch = int(input.batch_sizes[0].item())
        else:
            batch = data.shape[batch_dim] if batched else 1
            data = data if batched else data.unsqueeze(batch_dim)
            data = data.transpose(0, 1) if self.batch_first else data
        if states is not None:
            widths = (self.proj_size or self.hidden_size, self.hidden_size)
            for state, name, width in zip(states, names, widths, strict=False):
                self._check_state(state, name, width, batch, batched)
            if not batched:
                states = [state.unsqueeze(1) for state in states]
            elif packed and input.sorted_indices is not None:
                states = [state.index_select(1, input.sorted_indices) for state in states]
        output, finals = self._layers(data, states, len(names), input.batch_sizes if packed else None)
        if packed:
            output = PackedSequence(output, input.batch_sizes, input.sorted_indices, input.unsorted_indices)
            if input.unsorted_indices is not None:
                finals = [state.index_select(1, input.unsorted_indices) for state in finals]
            return output, finals
        output = output.transpose(0, 1) if self.batch_first else output
        if not batched:
            output, finals = output.squeeze(batch_dim), [state.squeeze(1) for state in finals]
        return output, finals

    def _layers(self, data, states, count, batch_sizes):
        """The layers one after the other, with dropout between them."""
        directions = 2 if self.bidirectional else 1
        finals = []
        for layer in range(self.num_layers):
            if states is None:
                first = [None] * count
            elif self.num_layers == 1:
                first = states
            else:
                first = [state[directions * layer:directions * (layer + 1)] for state in states]
            data, *last = self._layer(data, first, self._weights(layer), batch_sizes)
            finals.append(last)
            if self.dropout and layer + 1 < self.num_layers:
                data = F.dropout(data, self.dropout, self.training)
        return data, finals[0] if self.num_layers == 1 else [bpnn.cat(parts) for parts in zip(*finals, strict=True)]

    def _layer(self, data, first, weights, batch_sizes):
        """One layer: the output, then its last states."""
        raise TypeError(f"{type(self).__name__} has no layer")

    def extra_repr(self):
        """The sizes, and what is not the default."""
        text = f"{self.input_size}, {self.hidden_size}"
        for name, default in (("proj_size", 0), ("num_layers", 1), ("bias", True), ("batch_first", False), ("dropout", 0),
                              ("bidirectional", False)):
            if getattr(self, name) != default:
                text += f", {name}={getattr(self, name)}"
        return text


class RNN(RNNBase):
    """`h' = f(W x + b_ih + U h + b_hh)` step by step, f `tanh` or `relu`. Elman 1990.

    Input: (T, B, input_size), (B, T, input_size) with `batch_first`, (T, input_size) for one sequence, or a `PackedSequence`;
    `hx`: the first states, (layers * directions, B, hidden_size), zeros where it is None. Returns the last layer's states after
    each step (directions side by side) and the last states of all layers. `dropout` acts on the outputs of all layers but the last.
    Parameters, for each layer k: weight_ih_lk (hidden_size, its inputs), weight_hh_lk (hidden_size, hidden_size), bias_ih_lk,
    bias_hh_lk, the same with `_reverse` for the other direction; uniform in ±1/sqrt(hidden_size) at first.
    """

    def __init__(self, input_size, hidden_size, num_layers=1, nonlinearity="tanh", bias=True, batch_first=False, dropout=0.0,
                 bidirectional=False, device=None, dtype=None):
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"nonlinearity: expected 'tanh' or 'relu', got {nonlinearity!r}")
        super().__init__(f"RNN_{nonlinearity.upper()}", 1, input_size, hidden_size, num_layers, bias, batch_first, dropout,
                         bidirectional, 0, device, dtype)
        self.nonlinearity = nonlinearity

    def _layer(self, data, first, weights, batch_sizes):
        step = recurrent.rnn_tanh if self.nonlinearity == "tanh" else recurrent.rnn_relu
        return step(data, first[0], weights, batch_sizes)

    def forward(self, input, hx=None):
        """`(output, h_n)`."""
        output, (h,) = self._run(input, None if hx is None else (hx,), ("hx",))
        return output, h


class LSTM(RNNBase):
    """`c' = f c + i g`, `h' = o tanh(c')`, with i, f, o = sigmoid and g = tanh of `W x + b_ih + U h + b_hh`, each gate its own.

    As `RNN`, but `hx` is `(h, c)` and the result `(output, (h_n, c_n))`; the weights hold the gates i f g o one below the other:
    weight_ih_lk (4 hidden_size, inputs), and so on. With `proj_size` each h' is multiplied by weight_hr_lk
    (proj_size, hidden_size) before it is handed on. Hochreiter and Schmidhuber 1997; Sak et al. 2014.
    """

    def __init__(self, input_size, hidden_size, num_layers=1, bias=True, batch_first=False, dropout=0.0, bidirectional=False,
                 proj_size=0, device=None, dtype=None):
        super().__init__("LSTM", 4, input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size,
                         device, dtype)

    def _layer(self, data, first, weights, batch_sizes):
        return recurrent.lstm(data, *first, weights, batch_sizes)

    def forward(self, input, hx=None):
        """`(output, (h_n, c_n))`."""
        if hx is not None and not (isinstance(hx, (tuple, list)) and len(hx) == 2):
            raise RuntimeError(f"LSTM hx: expected (h_0, c_0), got {type(hx).__name__}")
        output, (h, c) = self._run(input, hx, ("hx[0]", "hx[1]"))
        return output, (h, c)


class GRU(RNNBase):
    """`h' = (1 - z) n + z h`, with r, z = sigmoid(W x + b_ih + U h + b_hh), n = tanh(W_n x + b_in + r (U_n h + b_hn)).

    Arguments and results as for `RNN`; the weights hold the gates r z n one below the other. Cho et al. 2014.
    """

    def __init__(self, input_size, hidden_size, num_layers=1, bias=True, batch_first=False, dropout=0.0, bidirectional=False,
                 device=None, dtype=None):
        super().__init__("GRU", 3, input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0, device,
                         dtype)

    def _layer(self, data, first, weights, batch_sizes):
        return recurrent.gru(data, first[0], weights, batch_sizes)

    def forward(self, input, hx=None):
        """`(output, h_n)`."""
        output, (h,) = self._run(input, None if hx is None else (hx,), ("hx",))
        return output, h


class RNNCellBase(Module):
    """What the cells share: their parameters."""

    def __init__(self, input_size, hidden_size, bias, num_chunks, device=None, dtype=None):
        super().__init__()
        _check_sizes(input_size=input_size, hidden_size=hidden_size)
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bias
        gates = num_chunks * hidden_size
        self.weight_ih = Parameter(empty(gates, input_size, dtype=dtype, device=device))
        self.weight_hh = Parameter(empty(gates, hidden_size, dtype=dtype, device=device))
        self.register_parameter("bias_ih", Parameter(empty(gates, dtype=dtype)) if bias else None)
        self.register_parameter("bias_hh", Parameter(empty(gates, dtype=dtype)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self):
        """Draw the weights anew."""
        _draw(self)

    def _step(self, function, input, states, names):
        """The states after one step of `function`."""
        name = type(self).__name__
        if input.ndim not in (1, 2):
            raise ValueError(f"{name} input: expected 1 or 2 axes, got shape {input.shape}")
        if input.shape[-1] != self.input_size:
            raise RuntimeError(f"{name} input: expected shape (*, {self.input_size}), the input_size, got {input.shape}")
        shape = (*input.shape[:-1], self.hidden_size)
        for state, what in zip(states, names, strict=True):
            if state is not None and state.shape != shape:
                raise RuntimeError(f"{name} {what}: expected shape {shape}, got {state.shape}")
        row = (1, -1)
        states = [None if state is None else state.reshape(*row, self.hidden_size) for state in states]
        weights = [(self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh, None)]
        last = function(input.reshape(*row, self.input_size), *states, weights)[1:]
        return [state.reshape(shape) for state in last]

    def extra_repr(self):
        """The sizes, and what is not the default."""
        text = f"{self.input_size}, {self.hidden_size}" + ("" if self.bias else f", bias={self.bias}")
        nonlinearity = getattr(self, "nonlinearity", "tanh")
        return text if nonlinearity == "tanh" else f"{text}, nonlinearity={nonlinearity}"


class RNNCell(RNNCellBase):
    """One step of an `RNN`: input (B, input_size) or (input_size,), hx (B, hidden_size) or (hidden_size,), zeros where None."""

    def __init__(self, input_size, hidden_size, bias=True, nonlinearity="tanh", device=None, dtype=None):
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"nonlinearity: expected 'tanh' or 'relu', got {nonlinearity!r}")
        super().__init__(input_size, hidden_size, bias, 1, device, dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input, hx=None):
        """The next state."""
        function = recurrent.rnn_tanh if self.nonlinearity == "tanh" else recurrent.rnn_relu
        return self._step(function, input, (hx,), ("hx",))[0]


class LSTMCell(RNNCellBase):
    """One step of an `LSTM`: as `RNNCell`, with `hx` and the result `(h, c)`."""

    def __init__(self, input_size, hidden_size, bias=True, device=None, dtype=None):
        super().__init__(input_size, hidden_size, bias, 4, device, dtype)

    def forward(self, input, hx=None):
        """The next `(h, c)`."""
        if hx is not None and not (isinstance(hx, (tuple, list)) and len(hx) == 2):
            raise RuntimeError(f"LSTMCell hx: expected (h_0, c_0), got {type(hx).__name__}")
        h, c = self._step(recurrent.lstm, input, (None, None) if hx is None else hx, ("hx[0]", "hx[1]"))
        return h, c


class GRUCell(RNNCellBase):
    """One step of a `GRU`: arguments as for `RNNCell`."""

    def __init__(self, input_size, hidden_size, bias=True, device=None, dtype=None):
        super().__init__(input_size, hidden_size, bias, 3, device, dtype)

    def forward(self, input, hx=None):
        """The next state."""
        return self._step(recurrent.gru, input, (hx,), ("hx",))[0]

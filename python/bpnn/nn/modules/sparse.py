"""Tables whose rows are picked by integers."""
from bpnn.autograd.mode import no_grad
from bpnn.creation import empty
from bpnn.nn import functional as F
from bpnn.nn import init
from bpnn.nn.modules.module import Module
from bpnn.nn.parameter import Parameter


class _Table(Module):
    """What `Embedding` and `EmbeddingBag` share: the table and how it begins."""

    def __init__(self, num_embeddings, embedding_dim, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse, weight, freeze,
                 device, dtype):
        super().__init__()
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        if padding_idx is not None:
            if not -num_embeddings <= padding_idx < num_embeddings:
                raise ValueError(
                    f"padding_idx: expected a row of the table, in [{-num_embeddings}, {num_embeddings - 1}], got {padding_idx}"
                )
            padding_idx = padding_idx % num_embeddings
        self.padding_idx, self.max_norm, self.norm_type = padding_idx, max_norm, norm_type
        self.scale_grad_by_freq, self.sparse = scale_grad_by_freq, sparse
        if weight is None:
            self.weight = Parameter(empty(num_embeddings, embedding_dim, dtype=dtype, device=device), not freeze)
            self.reset_parameters()
        else:
            if tuple(weight.shape) != (num_embeddings, embedding_dim):
                raise ValueError(f"_weight: expected shape {(num_embeddings, embedding_dim)}, got {tuple(weight.shape)}")
            self.weight = Parameter(weight, not freeze)

    def reset_parameters(self):
        """Draw the table anew, N(0, 1); the padding row is zero."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            with no_grad():
                self.weight[self.padding_idx] = 0

    def extra_repr(self):
        """The sizes, and what differs from the defaults."""
        said = [f"{self.num_embeddings}, {self.embedding_dim}"]
        defaults = {"padding_idx": None, "max_norm": None, "norm_type": 2.0, "scale_grad_by_freq": False, "sparse": False}
        said += [f"{name}={getattr(self, name)}" for name, usual in defaults.items() if getattr(self, name) != usual]
        return ", ".join(said)


def _sizes(embeddings):
    if embeddings.ndim != 2:
        raise ValueError(f"embeddings: expected 2 axes (rows, elements), got shape {tuple(embeddings.shape)}")
    return embeddings.shape


class Embedding(_Table):
    """A table with a row for each of `num_embeddings` things: `y[...] = weight[input[...]]`.

    input: int32 or int64, (*); y: (*, embedding_dim); weight: (num_embeddings, embedding_dim), N(0, 1) at first.

    Args:
        padding_idx: a row that starts as zero and gets no gradient.
        max_norm: rows that are used and have a larger `norm_type` norm are scaled down to it first, in place.
        scale_grad_by_freq: divide the gradient of a row by how often the batch names it.
        sparse: `weight.grad` holds the rows that were used alone, a `bpcore.sparse.SparseTensor`, for `optim.SGD`,
            `optim.Adagrad` and `optim.SparseAdam`.

    >>> import bpnn
    >>> table = bpnn.nn.Embedding(10, 3, padding_idx=0)
    >>> table(bpnn.tensor([[1, 2], [4, 0]])).shape
    (2, 2, 3)
    """

    def __init__(
        self, num_embeddings, embedding_dim, padding_idx=None, max_norm=None, norm_type=2.0, scale_grad_by_freq=False,
        sparse=False, _weight=None, _freeze=False, device=None, dtype=None,
    ):
        super().__init__(
            num_embeddings, embedding_dim, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse, _weight, _freeze, device,
            dtype,
        )

    def forward(self, input):
        """The rows that `input` names."""
        return F.embedding(
            input, self.weight, self.padding_idx, self.max_norm, self.norm_type, self.scale_grad_by_freq, self.sparse
        )

    @classmethod
    def from_pretrained(
        cls, embeddings, freeze=True, padding_idx=None, max_norm=None, norm_type=2.0, scale_grad_by_freq=False, sparse=False
    ):
        """An `Embedding` around the table `embeddings` (rows, elements), not trained unless `freeze=False`."""
        rows, columns = _sizes(embeddings)
        return cls(
            rows, columns, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse, _weight=embeddings, _freeze=freeze
        )


class EmbeddingBag(_Table):
    """The sum, mean or largest elements (`mode`) of the rows of a table in each bag of integers.

    input: int32 or int64, (B, N), each row a bag, or (N,) with offsets (B,), where each bag begins; y: (B, embedding_dim), zeros
    for an empty bag. With `include_last_offset` the offsets are (B + 1,) and end with where the last bag ends.

    Args as for `Embedding`; `padding_idx` names entries that do not count. `mode="max"` takes neither `sparse` nor
    `scale_grad_by_freq`.

    >>> import bpnn
    >>> table = bpnn.nn.EmbeddingBag.from_pretrained(bpnn.tensor([[1.0], [2.0], [4.0]]), mode="sum")
    >>> table(bpnn.tensor([0, 1, 2, 2]), bpnn.tensor([0, 2])).tolist()
    [[3.0], [8.0]]
    """

    def __init__(
        self, num_embeddings, embedding_dim, max_norm=None, norm_type=2.0, scale_grad_by_freq=False, mode="mean", sparse=False,
        _weight=None, include_last_offset=False, padding_idx=None, device=None, dtype=None,
    ):
        if mode not in ("sum", "mean", "max"):
            raise ValueError(f"mode: expected 'sum', 'mean' or 'max', got {mode!r}")
        super().__init__(
            num_embeddings, embedding_dim, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse, _weight, False, device,
            dtype,
        )
        self.mode, self.include_last_offset = mode, include_last_offset

    def forward(self, input, offsets=None, per_sample_weights=None):
        """Each bag as one row; `per_sample_weights`, of the shape of `input`, are factors of its rows for `mode="sum"`."""
        return F.embedding_bag(
            input, self.weight, offsets, self.max_norm, self.norm_type, self.scale_grad_by_freq, self.mode, self.sparse,
            per_sample_weights, self.include_last_offset, self.padding_idx,
        )

    def extra_repr(self):
        """The sizes, and what differs from the defaults."""
        return f"{super().extra_repr()}, mode={self.mode!r}"

    @classmethod
    def from_pretrained(
        cls, embeddings, freeze=True, max_norm=None, norm_type=2.0, scale_grad_by_freq=False, mode="mean", sparse=False,
        include_last_offset=False, padding_idx=None,
    ):
        """An `EmbeddingBag` around the table `embeddings` (rows, elements), not trained unless `freeze=False`."""
        rows, columns = _sizes(embeddings)
        bag = cls(
            rows, columns, max_norm, norm_type, scale_grad_by_freq, mode, sparse, embeddings, include_last_offset, padding_idx
        )
        bag.weight.requires_grad = not freeze
        return bag

"""Transforms of whole batches on their way from a loader."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import bpnn
from bpnn.utils.data.sampler import derived_seed

__all__ = ["TransformedLoader"]

PURPOSE = 3  # among the streams of random bits of a seed and an epoch (bpnn.utils.data.sampler): changes of whole batches


class TransformedLoader:
    """The batches of a `DataLoader` with `transform` applied to the first part of each.

    The random numbers of a batch are a function of the loader's seed, the pass and the batch's number, whatever else draws
    random numbers in between. A `Trainer` resumes it within a pass like the loader itself, to the bit.

    >>> import bpnn
    >>> from bpnn import transforms as T
    >>> from bpnn.utils.data import DataLoader, TensorDataset
    >>> data = TensorDataset(bpnn.rand(10, 1, 8, 8), bpnn.arange(10))
    >>> loader = T.TransformedLoader(DataLoader(data, 4, shuffle=True), T.RandomCrop(8, padding=1))
    >>> [tuple(x.shape) for x, y in loader]
    [(4, 1, 8, 8), (4, 1, 8, 8), (2, 1, 8, 8)]
    """

    def __init__(self, loader: Any, transform: Callable[[Any], Any]) -> None:
        if not hasattr(loader, "state_dict"):
            raise TypeError(f"loader: expected a DataLoader, got {type(loader).__name__}")
        self.loader, self.transform = loader, transform
        self._generator = bpnn.Generator()

    @property
    def dataset(self) -> Any:
        """The data set of the loader."""
        return self.loader.dataset

    def __len__(self) -> int:
        """How many batches a pass has."""
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        transform: Any = self.transform
        if hasattr(transform, "seeded"):
            transform.seeded(self._generator)
        for batch in self.loader:
            state = self.loader.state_dict()
            seed = derived_seed(state["seed"] or 0, state["epoch"], PURPOSE, state["position"])
            self._generator.manual_seed(seed)
            if isinstance(batch, (tuple, list)):
                yield [transform(batch[0]), *batch[1:]]
            else:
                yield transform(batch)

    def state_dict(self) -> dict[str, Any]:
        """Where the loader is."""
        return self.loader.state_dict()  # type: ignore[no-any-return]

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the loader that gave `state` was."""
        self.loader.load_state_dict(state)

    def set_epoch(self, epoch: int) -> None:
        """Make the next pass number `epoch`."""
        self.loader.set_epoch(epoch)

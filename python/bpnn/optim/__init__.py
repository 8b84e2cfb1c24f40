"""Optimizers, and schedules of the learning rate in `bpnn.optim.lr_scheduler`."""
from bpnn.optim import lr_scheduler
from bpnn.optim.adadelta import Adadelta
from bpnn.optim.adagrad import Adagrad
from bpnn.optim.adam import Adam, AdamW
from bpnn.optim.adamax import Adamax
from bpnn.optim.nadam import NAdam
from bpnn.optim.optimizer import Optimizer
from bpnn.optim.radam import RAdam
from bpnn.optim.rmsprop import RMSprop
from bpnn.optim.sgd import SGD
from bpnn.optim.sparse_adam import SparseAdam

__all__ = [
    "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "Optimizer", "RAdam", "RMSprop", "SGD", "SparseAdam",
    "lr_scheduler",
]

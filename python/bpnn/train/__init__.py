"""Training: the loop, what goes on beside it, scores, tables and checkpoints.

    from bpnn.train import Accuracy, BestModel, Trainer

    trainer = Trainer(model, optimizer, nn.CrossEntropyLoss(), metrics=[Accuracy()], callbacks=[BestModel()])
    trainer.fit(train_loader, validation_loader, epochs=10)
"""
from . import metrics
from .callbacks import BestModel, Callback, CheckpointWriter, EarlyStopping, StopOnInterrupt
from .checkpoint import (
    CheckpointError,
    best_checkpoint,
    latest_checkpoint,
    list_checkpoints,
    load_checkpoint,
    prune_checkpoints,
    save_checkpoint,
    verify_checkpoint,
)
from .history import History
from .loggers import MetricLogger, MLflow, TensorBoard, Trackio, WandB
from .plots import draw_curves
from .progress import HistoryFile, Progress
from .streaming import (
    F1,
    R2,
    ROCAUC,
    Accuracy,
    ConfusionMatrix,
    MeanAbsoluteError,
    MeanSquaredError,
    Metric,
    Precision,
    Recall,
    TopKAccuracy,
)
from .summary import summary
from .trainer import NonFiniteLoss, State, Trainer

__all__ = [
    "Accuracy",
    "BestModel",
    "Callback",
    "CheckpointError",
    "CheckpointWriter",
    "ConfusionMatrix",
    "EarlyStopping",
    "F1",
    "History",
    "HistoryFile",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "MLflow",
    "Metric",
    "MetricLogger",
    "NonFiniteLoss",
    "Precision",
    "Progress",
    "R2",
    "ROCAUC",
    "Recall",
    "State",
    "StopOnInterrupt",
    "TensorBoard",
    "TopKAccuracy",
    "Trackio",
    "Trainer",
    "WandB",
    "best_checkpoint",
    "draw_curves",
    "latest_checkpoint",
    "list_checkpoints",
    "load_checkpoint",
    "metrics",
    "prune_checkpoints",
    "save_checkpoint",
    "summary",
    "verify_checkpoint",
]

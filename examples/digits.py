"""Handwritten digits with the trainer: MNIST where BPNN_DATA has it, else the small UCI digits of scikit-learn."""
import bpnn
from bpnn import nn
from bpnn.train import Accuracy, BestModel, EarlyStopping, Progress, Trainer, summary
from bpnn.utils.data import DataLoader, TensorDataset, random_split

bpnn.manual_seed(0)
digits = bpnn.data.load_digits()
everything = TensorDataset(bpnn.from_numpy(digits.pixels("train")), bpnn.from_numpy(digits.train_labels))
training, validation = random_split(everything, [0.9, 0.1])
test = TensorDataset(bpnn.from_numpy(digits.pixels("test")), bpnn.from_numpy(digits.test_labels))

pixels = digits.size[0] * digits.size[1]
model = nn.Sequential(nn.Linear(pixels, 200), nn.ReLU(), nn.Dropout(0.2), nn.Linear(200, 10))
print(summary(model, (1, pixels)))

trainer = Trainer(
    model,
    bpnn.optim.Adam(model.parameters(), lr=1e-3),
    nn.CrossEntropyLoss(),
    metrics=[Accuracy()],
    callbacks=[BestModel("val_accuracy", "max"), EarlyStopping("val_accuracy", patience=3, mode="max"), Progress()],
)
trainer.fit(DataLoader(training, batch_size=64, shuffle=True), DataLoader(validation, batch_size=500), epochs=5)
print("test", trainer.evaluate(DataLoader(test, batch_size=500)))

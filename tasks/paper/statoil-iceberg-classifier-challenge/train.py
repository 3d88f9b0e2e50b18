import json

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from torch import nn

SEED = 0
EPOCHS = 15
BATCH = 32


def read_bands(file):
    """Return the table of a file without its pictures, and these as [B, 2, 75, 75]."""
    with open(file) as opened:
        table = pd.DataFrame(json.load(opened))
    bands = [np.stack(table.pop(name).tolist()).astype(np.float32).reshape(-1, 75, 75) for name in ("band_1", "band_2")]
    return table, (np.stack(bands, axis=1) + 20) / 10


torch.manual_seed(SEED)
device = "cuda" if torch.cuda.is_available() else "cpu"
train, X = read_bands("train.json")
test, X_test = read_bands("test.json")
y = train["is_iceberg"].to_numpy(np.float32)


def block(inputs, outputs):
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))


model = nn.Sequential(block(2, 16), block(16, 32), block(32, 64), nn.Flatten(), nn.Linear(64 * 9 * 9, 1)).to(device)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)


def predict(pictures):
    """Return the probabilities of an iceberg, [B]."""
    with torch.no_grad():
        batches = torch.from_numpy(pictures).split(256)
        return torch.cat([model(batch.to(device)).sigmoid().cpu() for batch in batches])[:, 0].numpy()


X_fit, X_val, y_fit, y_val = train_test_split(X, y, test_size=0.2, random_state=SEED)
X_fit, y_fit = torch.from_numpy(X_fit).to(device), torch.from_numpy(y_fit).to(device)
for epoch in range(EPOCHS):
    losses = []
    for rows in torch.randperm(len(X_fit)).split(BATCH):
        loss = nn.functional.binary_cross_entropy_with_logits(model(X_fit[rows])[:, 0], y_fit[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    print(f"epoch {epoch + 1}: loss {np.mean(losses):.4f}")
score = log_loss(y_val, predict(X_val), labels=[0, 1])
print(f"validation log_loss: {score:.4f}")

pd.DataFrame({"id": test["id"], "is_iceberg": predict(X_test)}).to_csv("submission.csv", index=False)

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from sklearn.model_selection import train_test_split
from torch import nn

SEED = 0
EPOCHS = 10


def read_page(file):
    """Return the pixels of a page as [1, 1, rows, columns], from 0 for black to 1 for white."""
    return torch.from_numpy(np.asarray(Image.open(file).convert("L"), np.float32) / 255)[None, None]


torch.manual_seed(SEED)
device = "cuda" if torch.cuda.is_available() else "cpu"
names = sorted(path.name for path in Path("train").glob("*.png"))
fit, val = train_test_split(names, test_size=0.2, random_state=SEED)
pages = {name: (read_page(f"train/{name}"), read_page(f"train_cleaned/{name}")) for name in names}

# An autoencoder: every 4 x 4 pixels become 8 numbers, and these pixels again.
model = nn.Sequential(
    nn.Conv2d(1, 8, 4, stride=4),
    nn.ReLU(),
    nn.Conv2d(8, 8, 3, padding=1),
    nn.ReLU(),
    nn.ConvTranspose2d(8, 1, 4, stride=4),
).to(device)
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)


def clean(page):
    """Return a page as the model cleans it; its edges are repeated until its sides are multiples of 4."""
    rows, columns = page.shape[-2:]
    padded = nn.functional.pad(page, (0, -columns % 4, 0, -rows % 4), mode="replicate")
    return model(padded.to(device))[..., :rows, :columns]


for epoch in range(EPOCHS):
    losses = []
    for row in torch.randperm(len(fit)):
        dirty, target = pages[fit[row]]
        loss = nn.functional.mse_loss(clean(dirty), target.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    print(f"epoch {epoch + 1}: loss {np.mean(losses):.4f}")
with torch.no_grad():
    errors = torch.cat([(clean(pages[name][0]).cpu().clamp(0, 1) - pages[name][1]).flatten() for name in val])
score = errors.square().mean().sqrt().item()
print(f"validation rmse: {score:.4f}")

submission = []
for path in sorted(Path("test").glob("*.png")):
    with torch.no_grad():
        values = clean(read_page(path))[0, 0].cpu().clamp(0, 1).numpy()
    rows, columns = values.shape
    ids = [f"{path.stem}_{row}_{column}" for row in range(1, rows + 1) for column in range(1, columns + 1)]
    submission.append(pd.DataFrame({"id": ids, "value": values.ravel()}))
pd.concat(submission).to_csv("submission.csv", index=False, float_format="%.4f")

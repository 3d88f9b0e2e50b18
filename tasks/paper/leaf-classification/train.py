import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

train = pd.read_csv("train.csv")
test = pd.read_csv("test.csv")
species = pd.read_csv("sample_submission.csv").columns[1:]
y = train["species"]
X = train.drop(columns=["id", "species"])
X_test = test[X.columns]


def predict(measures):
    """Return the probabilities of all species, 0 for those that the model has not seen."""
    known = pd.DataFrame(model.predict_proba(measures), columns=model.classes_)
    return known.reindex(columns=species, fill_value=0.0)


X_fit, X_val, y_fit, y_val = train_test_split(X, y, test_size=0.2, random_state=0)
model = make_pipeline(StandardScaler(), LogisticRegression(C=10, max_iter=1000))
model.fit(X_fit, y_fit)
score = log_loss(y_val, predict(X_val), labels=species)
print(f"validation log_loss: {score:.4f}")

model.fit(X, y)
submission = predict(X_test)
submission.insert(0, "id", test["id"])
submission.to_csv("submission.csv", index=False)

"""The keywords of each estimator for regularization, iterations, learning rate and probabilities."""

LEAF = ("min_samples_leaf", 1, -1)
# estimator -> (keyword, default, direction: +1 if a larger value regularizes less)
REGULARISATION: dict[str, tuple[str, float, int]] = {
    "LogisticRegression": ("C", 1.0, 1),
    "SVC": ("C", 1.0, 1),
    "SVR": ("C", 1.0, 1),
    "LinearSVC": ("C", 1.0, 1),
    "LinearSVR": ("C", 1.0, 1),
    "Ridge": ("alpha", 1.0, -1),
    "Lasso": ("alpha", 1.0, -1),
    "ElasticNet": ("alpha", 1.0, -1),
    "MultinomialNB": ("alpha", 1.0, -1),
    "SGDClassifier": ("alpha", 0.0001, -1),
    "SGDRegressor": ("alpha", 0.0001, -1),
    "MLPClassifier": ("alpha", 0.0001, -1),
    "MLPRegressor": ("alpha", 0.0001, -1),
    "KNeighborsClassifier": ("n_neighbors", 5, -1),
    "KNeighborsRegressor": ("n_neighbors", 5, -1),
    "DecisionTreeClassifier": LEAF,
    "DecisionTreeRegressor": LEAF,
    "RandomForestClassifier": LEAF,
    "RandomForestRegressor": LEAF,
    "ExtraTreesClassifier": LEAF,
    "ExtraTreesRegressor": LEAF,
    "GradientBoostingClassifier": LEAF,
    "GradientBoostingRegressor": LEAF,
    "HistGradientBoostingClassifier": ("min_samples_leaf", 20, -1),
    "HistGradientBoostingRegressor": ("min_samples_leaf", 20, -1),
    "HuberRegressor": ("alpha", 0.0001, -1),
}
# estimator -> (keyword, default)
ITERATIONS: dict[str, tuple[str, int]] = {
    "LogisticRegression": ("max_iter", 100),
    "Lasso": ("max_iter", 1000),
    "LinearSVC": ("max_iter", 1000),
    "LinearSVR": ("max_iter", 1000),
    "HistGradientBoostingClassifier": ("max_iter", 100),
    "HistGradientBoostingRegressor": ("max_iter", 100),
    "SGDClassifier": ("max_iter", 1000),
    "SGDRegressor": ("max_iter", 1000),
    "MLPClassifier": ("max_iter", 200),
    "MLPRegressor": ("max_iter", 200),
    "GradientBoostingClassifier": ("n_estimators", 100),
    "GradientBoostingRegressor": ("n_estimators", 100),
}
# estimator -> (keyword, default, a value far too high that still gives finite predictions)
LEARNING_RATE: dict[str, tuple[str, float, float]] = {
    "GradientBoostingClassifier": ("learning_rate", 0.1, 1.5),
    "GradientBoostingRegressor": ("learning_rate", 0.1, 1.5),
    "HistGradientBoostingClassifier": ("learning_rate", 0.1, 1.5),
    "HistGradientBoostingRegressor": ("learning_rate", 0.1, 1.5),
    "MLPClassifier": ("learning_rate_init", 0.001, 0.5),
    "MLPRegressor": ("learning_rate_init", 0.001, 3.0),
    "SGDClassifier": ("eta0", 0.01, 1.0),
}
# classifier without probabilities by default or by option -> (keyword, the values with which it has them)
PROBABILITIES: dict[str, tuple[str, tuple[object, ...]]] = {
    "SVC": ("probability", (True,)),
    "SGDClassifier": ("loss", ("log_loss", "modified_huber")),
    "LinearSVC": ("", ()),
    "RidgeClassifier": ("", ()),
    "PassiveAggressiveClassifier": ("", ()),
}
CAN_WEIGH = frozenset(
    {
        "LogisticRegression",
        "SVC",
        "LinearSVC",
        "SGDClassifier",
        "DecisionTreeClassifier",
        "RandomForestClassifier",
        "ExtraTreesClassifier",
        "HistGradientBoostingClassifier",
    }
)

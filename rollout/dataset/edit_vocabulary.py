"""Rules that map the calls, keywords and variables of a training script to the category of an edit.

Names are those of scikit-learn, pandas, PyTorch, torchvision and the common gradient-boosting libraries. A rule is a
regular expression for a whole name; the first rule that matches decides.
"""

import re
from collections.abc import Sequence
from typing import Literal

Category = Literal[
    "ensembling",
    "model",
    "augmentation",
    "features",
    "preprocessing",
    "loss",
    "training",
    "hyper-parameters",
    "validation",
    "post-processing",
    "seed",
    "other",
    "cosmetic",
    "no change",
    "unparsable",
]
CATEGORY_TITLES: dict[Category, str] = {
    "ensembling": "Several models combined",
    "model": "Another model or architecture",
    "augmentation": "Data augmentation",
    "features": "Features",
    "preprocessing": "Preprocessing",
    "loss": "Loss, class weights or metric",
    "training": "Training loop, optimizer, epochs",
    "hyper-parameters": "Hyper-parameters",
    "validation": "Validation split",
    "post-processing": "Post-processing of predictions",
    "seed": "Random seed",
    "other": "Anything else",
    "cosmetic": "Comments, formatting or names only",
    "no change": "No change",
    "unparsable": "Not valid Python",
}
# The primary category of an edit is the first of its categories in this order.
PRIORITY: tuple[Category, ...] = tuple(CATEGORY_TITLES)

Rules = Sequence[tuple[Category, re.Pattern[str]]]


def _rules(*rules: tuple[Category, str]) -> Rules:
    return tuple((category, re.compile(pattern)) for category, pattern in rules)


def category_of(name: str, rules: Rules) -> Category | None:
    """Return the category of the first rule that matches the whole name, None if none does."""
    return next((category for category, pattern in rules if pattern.fullmatch(name)), None)


# The layers of a neural network: any change of their arguments is another architecture.
LAYERS = re.compile(
    r"(Lazy)?(Conv|ConvTranspose|BatchNorm|InstanceNorm|MaxPool|AvgPool|AdaptiveAvgPool|AdaptiveMaxPool)\dd|"
    r"(Lazy)?Linear|Bilinear|(Layer|Group|RMS)Norm|[Dd]ropout\w*|LSTM\w*|GRU\w*|RNN\w*|Embedding\w*|"
    r"MultiheadAttention|Transformer\w+|Sequential|ModuleList|ModuleDict|Identity|Flatten|Unflatten|Upsample|"
    r"PixelShuffle|\w*(ReLU|ELU|GELU|CELU|SiLU|Mish|Hardswish|Softplus)\w*|Tanh|Sigmoid|Softmax|Dense|"
    r"(leaky_)?relu\w*|[gps]?elu|silu|conv\dd|(adaptive_)?(max|avg)_pool\w*|(batch|layer)_norm"
)

# The last part of a called name, such as `fillna` in `train.fillna(0)`.
CALLS = _rules(
    ("ensembling", r"(Voting|Stacking|Bagging)\w*|\w*Ensemble\w*|AveragedModel|swa_\w+|\w*[Bb]lend\w*"),
    ("hyper-parameters", r"\w*SearchCV|ParameterGrid|ParameterSampler|create_study|suggest_\w+|BayesSearch\w*"),
    ("post-processing", r"CalibratedClassifierCV|(Tuned|Fixed)ThresholdClassifier\w*|clip|clamp_?|round_?|softmax"),
    (
        "validation",
        r"train_test_split|random_split|cross_val\w*|\w*KFold\w*|\w*ShuffleSplit|TimeSeriesSplit|LeaveOneOut",
    ),
    ("seed", r"manual_seed(_all)?|seed|set_seed|seed_everything|default_rng|RandomState|set_random_seed"),
    (
        "augmentation",
        r"Random(?!Forest|izedSearch|Trees|Sampler|OverSampler|UnderSampler|State)\w*|ColorJitter|\w*AutoAugment\w*|"
        r"RandAugment|TrivialAugment\w*|AugMix|MixUp|Mixup|CutMix|Cutout|GaussianBlur|GaussianNoise|\w*augment\w*|"
        r"(h|v|horizontal_|vertical_)?flip(lr|ud)?|rot90|rotate|roll|mixup\w*|cutmix\w*|HorizontalFlip|VerticalFlip|"
        r"ImageDataGenerator|ElasticTransform|SMOTE\w*",
    ),
    ("loss", r"\w*Loss|\w*cross_entropy\w*|\w+_loss|compute_class_weight|compute_sample_weight|\w+_(score|error)"),
    ("loss", r"(accuracy|roc_auc|log_loss|r2|f1|rmse|mae|mse)\w*|WeightedRandomSampler"),
    (
        "preprocessing",
        r"\w*Scaler|\w*Imputer|\w*Encoder|(Quantile|Power|Column|Function|TransformedTarget)\w*|Normalizer|Normalize|"
        r"normalize|Binarizer|KBinsDiscretizer|make_column_transformer|make_column_selector|get_dummies|fillna|"
        r"interpolate|dropna|drop_duplicates|sample|Resize|CenterCrop|ToTensor|resize|crop|astype|cut|qcut|"
        r"\w*Tokenizer\w*|tokenize\w*|expm1|log1p|RandomOverSampler|RandomUnderSampler|reindex|sub|replace|lower|"
        r"(medfilt|gaussian|median|uniform|minimum|maximum|percentile)\w*|isna|isnull|notna|quantile|winsorize|ffill|"
        r"bfill|label_binarize|LabelBinarizer|factorize|MissingIndicator",
    ),
    (
        "features",
        r"(Polynomial|Spline)\w*|\w*PCA|TruncatedSVD|NMF|FastICA|LatentDirichletAllocation|Nystroem|RBFSampler|"
        r"Select\w+|RFE(CV)?|VarianceThreshold|SequentialFeatureSelector|\w*Vectorizer|TfidfTransformer|FeatureUnion|"
        r"make_union|FeatureHasher|(hog|lbp|glcm|canny)\w*|select_dtypes|assign|drop|filter|groupby|agg|merge|pivot\w*|"
        r"concat|concatenate|hstack|column_stack|cumsum|shift|rolling|diff|to_datetime|insert|pop|TSNE|"
        r"Gaussian\w*Projection|sliding_window_view|pad|gradient|sobel|laplace|fft\w*",
    ),
    (
        "training",
        r"Adam\w*|N?RAdam|SGD|RMSprop|Adagrad|Adadelta|Adamax|LBFGS|Lion|Lamb|Lookahead|SAM|\w*LR|\w*Scheduler|"
        r"get_\w*schedule\w*|ReduceLROnPlateau|clip_grad\w*|GradScaler|autocast|EarlyStopping|early_stopping|"
        r"DataLoader|zero_grad|backward|step|TrainingArguments|Trainer|compile|state_dict|load_state_dict|deepcopy|"
        r"SWALR|param_groups|cuda|data_loader|partial_fit|randperm",
    ),
    (
        "model",
        r"\w*(Classifier|Regressor|Regression|SVC|SVR|NB)(CV)?|(Bayesian)?Ridge(CV)?|\w*Lasso\w*|ElasticNet(CV)?|"
        r"\w*(Perceptron|Forest|Tree|Trees)|KMeans|\w*DiscriminantAnalysis|NearestCentroid|KernelRidge|LGBM\w*|XGB\w*|"
        r"CatBoost\w*|PLSRegression|Label(Propagation|Spreading)|LinearSV[CR]|NuSV[CR]|OneVs\w+|ClassifierChain|"
        r"MultiOutput\w*|DMatrix|IsolationForest|GaussianMixture",
    ),
    ("model", LAYERS.pattern),
    (
        "model",
        r"(wide_)?res(net|next)\w*|efficientnet\w*|mobilenet\w*|densenet\w*|vgg\w*|convnext\w*|vit_\w+|swin\w*|"
        r"inception\w*|regnet\w*|squeezenet\w*|shufflenet\w*|alexnet\w*|create_model|from_pretrained|AutoModel\w*|"
        r"\w+For\w+|GCN\w*|GAT\w*|SAGE\w*|freeze|requires_grad_",
    ),
)

# A keyword argument whose value changed. Any other keyword counts for the category of its call, and for
# hyper-parameters if the call makes a model.
KEYWORDS = _rules(
    ("seed", r"random_state|seed|random_seed|\w+_seed|generator"),
    ("validation", r"test_size|train_size|cv|n_splits|num_folds|n_folds|stratify|validation_fraction|validation_split"),
    ("loss", r"loss|loss_function|criterion|objective|class_weight|sample_weight|pos_weight|scale_pos_weight|scoring"),
    ("loss", r"eval_metric|metric|label_smoothing|average"),
    (
        "training",
        r"(num_|n_|max_|num_train_)?(epochs?|iter|iters|iterations|steps)|early_stopping\w*|n_iter_no_change|patience|"
        r"batch_size|device|solver|optimizer|warmup\w*|warm_start|tol|num_boost_round|betas|momentum|nesterov|amp|fp16",
    ),
    ("hyper-parameters", r"lr|learning_rate\w*|weight_decay|eta0?|alpha|C|max_depth|n_estimators|reg_\w+|param_grid"),
)
# The variable that a changed statement assigns or loops over, if the calls in the statement say nothing.
VARIABLES = _rules(
    ("seed", r"(?i)\w*seed"),
    ("ensembling", r"(?i)(seeds|models|members|ensemble|weights?_by_model)"),
    (
        "training",
        r"(?i)(num_|n_|max_)?(epochs?|iterations|iters|steps)|patience|(\w+_)?batch(_size)?|device|optimi[sz]er|"
        r"scheduler|warmup\w*|best_state|loader|(train|val|test)_loader",
    ),
    ("validation", r"(?i)\w*folds?|num_val|val(id(ation)?)?(_\w+)?|fit|splits?|holdout|n_splits|test_size"),
    ("augmentation", r"(?i)\w*augment\w*|flipped|rotated|shifted|noisy"),
    ("loss", r"(?i)loss(es)?|criterion|score\w*|metric|(class_|sample_)?weights?"),
    ("post-processing", r"(?i)\w*pred\w*|\w*prob\w*|submission|threshold|answer|output|clipped"),
    (
        "hyper-parameters",
        r"(?i)(\w+_)?lr|learning_rate|alpha|weight_decay|momentum|dropout|hidden\w*|depth|width|param\w*",
    ),
    ("features", r"X(_\w+)?|(?i:\w*feature\w*|\w*columns?|vocabulary|embeddings?)"),
    (
        "preprocessing",
        r"y(_\w+)?|(?i:train|test|data|df|rows|images?|texts?|labels?|target|mean|std|scaled|size|clean\w*)",
    ),
    ("model", r"(?i)model\w*|net(work)?|backbone|encoder|decoder|head|classifier|regressor|clf|reg|estimator"),
)

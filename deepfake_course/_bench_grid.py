"""The row `grid-search` of `deepfake-course bench tasks`: report 002's grid on sample A. Written by hand."""
import warnings

import numpy as np
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ._bench import Bench
from .intra_database import best_cells, families, find_faces, grid_search, landmark_features, make_folds
from .samples import load_samples

NAMES, SHARES = ("SVM RBF", "SVM linear", "LR"), (None, 0.95)


def setup():
    """Grey values of A's faces, its folds by identity, and the grids of three of the report's families."""
    rows = find_faces(load_samples("A"))
    rows = rows[rows["face"]].reset_index(drop=True)
    tried = {name: family for name, family in families().items() if name in NAMES}
    return [(landmark_features(rows), rows["label"].to_numpy(), make_folds(rows, "identity", 5), tried)]


def _fit_and_score(steps, x, y, test):
    model = make_pipeline(*map(clone, steps)).fit(x[~test], y[~test])
    if hasattr(model, "decision_function"):
        return roc_auc_score(y[test], model.decision_function(x[test]))
    return roc_auc_score(y[test], model.predict_proba(x[test])[:, 1])


def obvious(given):
    """Each cell in each fold scales, projects and fits anew, as scikit-learn's GridSearchCV does; one process."""
    x, y, fold, tried = given
    best = {}
    for name, family in tried.items():
        for share in SHARES:
            projection = [PCA(share, svd_solver="full"), StandardScaler()] if share else []
            for params in family.cells(share):
                steps = [StandardScaler(), *projection, clone(family.model).set_params(**params)]
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ConvergenceWarning)
                    told = np.mean([_fit_and_score(steps, x, y, fold == n) for n in range(fold.max() + 1)])
                if name not in best or told > best[name][0] + 1e-12:
                    best[name] = told, share, params
    return best


def ours(given):
    """What cells share is computed once, and a cell that cannot win any more is left (`keep="winner"`)."""
    x, y, fold, tried = given
    found = best_cells(grid_search(x, y, fold, tried, SHARES, keep="winner"))
    return {
        name: (cell["auc"], None if np.isnan(cell["pca"]) else cell["pca"], cell["params"])
        for name, cell in found.iterrows()
    }


def agree(given, a, b):
    """The same cell wins in each family, with the same AUC."""
    same = all(a[name][1:] == b[name][1:] for name in given[3])
    apart = max(abs(a[name][0] - b[name][0]) for name in given[3])
    cells = sum(len(family.cells(share)) for family in given[3].values() for share in SHARES)
    what = f"{cells} cells in {given[2].max() + 1} folds; winners {'the same' if same else 'DIFFER'}"
    return bool(same and apart < 1e-9), f"{what}, AUCs apart by at most {apart:.0e}; one process, keep='winner'"


ROWS = [
    Bench(
        "grid-search",
        "a loop over cells and folds that computes everything anew",
        3,
        setup,
        obvious,
        ours,
        agree,
        repeats=2,
    )
]

# %% align: all by one measure
def aligned(x, database):
    spread = x.std(0)
    return np.where(spread > 0, (x - x.mean(0))/np.where(spread > 0, spread, 1), 0)

# %% align: by the measure of the first database
def aligned(x, database):
    first = database == np.unique(database)[0]
    spread = x[first].std(0)
    return np.where(spread > 0, (x - x[first].mean(0))/np.where(spread > 0, spread, 1), 0)

# %% align: n - 1 below
def aligned(x, database):
    found = np.zeros(x.shape)
    for name in np.unique(database):
        own = database == name
        spread = x[own].std(0, ddof=1)
        found[own] = np.where(spread > 0, (x[own] - x[own].mean(0))/np.where(spread > 0, spread, 1), 0)
    return found

# %% align: NaN where a column is constant
def aligned(x, database):
    found = np.zeros(x.shape)
    for name in np.unique(database):
        own = database == name
        with np.errstate(invalid="ignore"):
            found[own] = (x[own] - x[own].mean(0))/x[own].std(0)
    return found

# %% align: each row instead of each column
def aligned(x, database):
    spread = x.std(1, keepdims=True)
    return np.where(spread > 0, (x - x.mean(1, keepdims=True))/np.where(spread > 0, spread, 1), 0)

# %% alarms: the old threshold
def same_alarms(here, there, cut):
    return cut

# %% alarms: a quantile between the scores
def same_alarms(here, there, cut):
    return np.quantile(there, 1 - (here >= cut).mean())

# %% alarms: above instead of at or above
def same_alarms(here, there, cut):
    share, cuts = (here > cut).mean(), np.unique(there)
    few = cuts[(there[:, None] > cuts).mean(0) <= share + 1e-12]
    return few[0] if len(few) else np.inf

# %% alarms: nearest share, even if it is larger
def same_alarms(here, there, cut):
    share, cuts = (here >= cut).mean(), np.unique(there)
    return cuts[np.abs((there[:, None] >= cuts).mean(0) - share).argmin()]

# %% within: all frames together
def within_auc(y, score, database):
    return auc(y, score)

# %% within: weighted by size
def within_auc(y, score, database):
    names, counts = np.unique(database, return_counts=True)
    return np.average([auc(y[database == n], score[database == n]) for n in names], weights=counts)

# %% within: hard labels
def within_auc(y, score, database):
    return np.mean([auc(y[database == n], score[database == n] >= .5) for n in np.unique(database)])

# %% within: the worst
def within_auc(y, score, database):
    return min(auc(y[database == n], score[database == n]) for n in np.unique(database))

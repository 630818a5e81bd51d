# %% strangers: mean and spread of all frames
def scores_of_strangers(x, y, person, strength):
    score = np.full(len(y), np.nan)
    mean, sd = x.mean(0), x.std(0)
    for name in np.unique(person):
        test = person == name
        w, offset = ridge((x[~test] - mean)/sd, y[~test], strength)
        score[test] = (x[test] - mean)/sd @ w + offset
    return score

# %% strangers: trained on everybody
def scores_of_strangers(x, y, person, strength):
    mean, sd = x.mean(0), x.std(0)
    w, offset = ridge((x - mean)/sd, y, strength)
    return (x - mean)/sd @ w + offset

# %% strangers: folds of frames instead of people
def scores_of_strangers(x, y, person, strength):
    score, fold = np.full(len(y), np.nan), np.arange(len(y)) % 5
    for k in range(5):
        test = fold == k
        mean, sd = x[~test].mean(0), x[~test].std(0)
        w, offset = ridge((x[~test] - mean)/sd, y[~test], strength)
        score[test] = (x[test] - mean)/sd @ w + offset
    return score

# %% strangers: decisions instead of scores
def scores_of_strangers(x, y, person, strength):
    score = np.full(len(y), np.nan)
    for name in np.unique(person):
        test = person == name
        mean, sd = x[~test].mean(0), x[~test].std(0)
        w, offset = ridge((x[~test] - mean)/sd, y[~test], strength)
        score[test] = ((x[test] - mean)/sd @ w + offset) >= .5
    return score

# %% strangers: the test frames are scaled by themselves
def scores_of_strangers(x, y, person, strength):
    score = np.full(len(y), np.nan)
    for name in np.unique(person):
        test = person == name
        w, offset = ridge((x[~test] - x[~test].mean(0))/x[~test].std(0), y[~test], strength)
        score[test] = (x[test] - x[test].mean(0))/x[test].std(0) @ w + offset
    return score

# %% low-alarm: hard labels
def low_alarm_auc(y, score, most):
    fpr, tpr, _ = roc(y, score >= .5)
    inside = fpr <= most
    x, height = np.r_[fpr[inside], most], np.r_[tpr[inside], np.interp(most, fpr, tpr)]
    area = ((x[1:] - x[:-1])*(height[1:] + height[:-1])/2).sum()
    return (1 + (area - most**2/2)/(most - most**2/2))/2

# %% low-alarm: the area itself
def low_alarm_auc(y, score, most):
    fpr, tpr, _ = roc(y, score)
    inside = fpr <= most
    x, height = np.r_[fpr[inside], most], np.r_[tpr[inside], np.interp(most, fpr, tpr)]
    return ((x[1:] - x[:-1])*(height[1:] + height[:-1])/2).sum()

# %% low-alarm: divided by most
def low_alarm_auc(y, score, most):
    fpr, tpr, _ = roc(y, score)
    inside = fpr <= most
    x, height = np.r_[fpr[inside], most], np.r_[tpr[inside], np.interp(most, fpr, tpr)]
    return ((x[1:] - x[:-1])*(height[1:] + height[:-1])/2).sum()/most

# %% low-alarm: stops at the last point before most
def low_alarm_auc(y, score, most):
    fpr, tpr, _ = roc(y, score)
    x, height = fpr[fpr <= most], tpr[fpr <= most]
    area = ((x[1:] - x[:-1])*(height[1:] + height[:-1])/2).sum()
    return (1 + (area - most**2/2)/(most - most**2/2))/2

# %% low-alarm: the whole AUC
def low_alarm_auc(y, score, most):
    return auc(y, score)

# %% jackknife: leaves out frames
def person_interval(y, score, person):
    value = auc(y, score)
    left = np.array([auc(np.delete(y, k), np.delete(score, k)) for k in range(len(y))])
    se = np.sqrt((len(left) - 1)/len(left)*((left - left.mean())**2).sum())
    return value, max(value - 1.96*se, 0), min(value + 1.96*se, 1)

# %% jackknife: the spread of the AUCs is taken for the standard error
def person_interval(y, score, person):
    value = auc(y, score)
    left = np.array([auc(y[person != name], score[person != name]) for name in np.unique(person)])
    se = left.std()
    return value, max(value - 1.96*se, 0), min(value + 1.96*se, 1)

# %% jackknife: as for a mean of k numbers
def person_interval(y, score, person):
    value = auc(y, score)
    left = np.array([auc(y[person != name], score[person != name]) for name in np.unique(person)])
    se = left.std(ddof=1)/np.sqrt(len(left))
    return value, max(value - 1.96*se, 0), min(value + 1.96*se, 1)

# %% jackknife: the interval leaves [0, 1]
def person_interval(y, score, person):
    value = auc(y, score)
    left = np.array([auc(y[person != name], score[person != name]) for name in np.unique(person)])
    se = np.sqrt((len(left) - 1)/len(left)*((left - left.mean())**2).sum())
    return value, value - 1.96*se, value + 1.96*se

# %% pairs: a row and itself are a pair
def pair_loss(emb, y, margin):
    far = distances(emb)
    return np.where(y[:, None] == y, far**2, np.maximum(margin - far, 0)**2).mean()

# %% pairs: the hinge is not squared
def pair_loss(emb, y, margin):
    far = distances(emb)
    cost = np.where(y[:, None] == y, far**2, np.maximum(margin - far, 0))
    return cost[np.triu_indices(len(y), 1)].mean()

# %% pairs: margin and distance squared apart
def pair_loss(emb, y, margin):
    far = distances(emb)
    cost = np.where(y[:, None] == y, far**2, np.maximum(margin**2 - far**2, 0))
    return cost[np.triu_indices(len(y), 1)].mean()

# %% pairs: no hinge
def pair_loss(emb, y, margin):
    far = distances(emb)
    cost = np.where(y[:, None] == y, far**2, (margin - far)**2)
    return cost[np.triu_indices(len(y), 1)].mean()

# %% easy: an anchor is its own positive
def easy_positives(emb, y):
    far, same = distances(emb), y[:, None] == y
    return np.stack([np.arange(len(y)), np.where(same, far, np.inf).argmin(1),
                     np.where(same, np.inf, far).argmin(1)], 1)

# %% easy: the farthest positive
def easy_positives(emb, y):
    far, same = distances(emb), y[:, None] == y
    return np.stack([np.arange(len(y)), np.where(same, far, -1).argmax(1), np.where(same, np.inf, far).argmin(1)], 1)

# %% easy: the negative nearest to the positive
def easy_positives(emb, y):
    far, same = distances(emb), y[:, None] == y
    positive = np.where(same & ~np.eye(len(y), dtype=bool), far, np.inf).argmin(1)
    negative = np.where(same, np.inf, far).argmin(1)[positive]
    return np.stack([np.arange(len(y)), positive, negative], 1)

# %% easy: the farthest negative
def easy_positives(emb, y):
    far, same = distances(emb), y[:, None] == y
    positive = np.where(same & ~np.eye(len(y), dtype=bool), far, np.inf).argmin(1)
    return np.stack([np.arange(len(y)), positive, np.where(same, -1, far).argmax(1)], 1)

# %% recall: the frame itself is a neighbour
def recall_among_strangers(emb, y, person, k):
    nearest = np.argsort(distances(emb), axis=1, kind="stable")[:, :k]
    return float((y[nearest] == y[:, None]).any(1).mean())

# %% recall: frames of the same person are neighbours
def recall_among_strangers(emb, y, person, k):
    far = distances(emb)
    np.fill_diagonal(far, np.inf)
    nearest = np.argsort(far, axis=1, kind="stable")[:, :k]
    return float((y[nearest] == y[:, None]).any(1).mean())

# %% recall: most of the neighbours instead of one
def recall_among_strangers(emb, y, person, k):
    far = distances(emb)
    far[person[:, None] == person] = np.inf
    nearest = np.argsort(far, axis=1, kind="stable")[:, :k]
    return float(((y[nearest] == y[:, None]).mean(1) > .5).mean())

# %% recall: share of right neighbours (precision)
def recall_among_strangers(emb, y, person, k):
    far = distances(emb)
    far[person[:, None] == person] = np.inf
    nearest = np.argsort(far, axis=1, kind="stable")[:, :k]
    return float((y[nearest] == y[:, None]).mean())

# %% start: pulled towards 0
def borrowed_start(x, y, start, pull):
    return np.linalg.solve(x.T @ x + pull*np.eye(x.shape[1]), x.T @ y)

# %% start: ridge, and start added afterwards
def borrowed_start(x, y, start, pull):
    return start + np.linalg.solve(x.T @ x + pull*np.eye(x.shape[1]), x.T @ y)

# %% start: means instead of sums
def borrowed_start(x, y, start, pull):
    return np.linalg.solve(x.T @ x/len(x) + pull*np.eye(x.shape[1]), x.T @ y/len(x) + pull*start)

# %% start: the pull is forgotten on one side
def borrowed_start(x, y, start, pull):
    return np.linalg.solve(x.T @ x + pull*np.eye(x.shape[1]), x.T @ y + start)

# %% weights: classes only
def cell_weights(y, database):
    return np.where(y == 1, len(y)/2/max((y == 1).sum(), 1), len(y)/2/max((y == 0).sum(), 1))

# %% weights: databases only
def cell_weights(y, database):
    names, place, counts = np.unique(database, return_inverse=True, return_counts=True)
    return len(y)/len(names)/counts[place]

# %% weights: sum to 1
def cell_weights(y, database):
    cells = np.char.add(database.astype(str), y.astype(str))
    names, place, counts = np.unique(cells, return_inverse=True, return_counts=True)
    return 1/len(names)/counts[place]

# %% weights: class times database, as if they were independent
def cell_weights(y, database):
    names, place, counts = np.unique(database, return_inverse=True, return_counts=True)
    by_class = np.bincount(y, minlength=2)[y]
    weight = 1/counts[place]/by_class
    return weight*len(y)/weight.sum()

# %% allowed: other databases, whoever is in them
def may_learn(database, person, donor, target):
    return database != target

# %% allowed: people only, donors forgotten
def may_learn(database, person, donor, target):
    return (database != target) & ~np.isin(person, person[database == target])

# %% allowed: nobody counts as somebody
def may_learn(database, person, donor, target):
    there = database == target
    known = np.r_[person[there], donor[there]]
    return ~there & ~np.isin(person, known) & ~np.isin(donor, known)

# %% allowed: each role by itself
def may_learn(database, person, donor, target):
    there = database == target
    donors = [name for name in donor[there] if name]
    return ~there & ~np.isin(person, person[there]) & ~np.isin(donor, donors)

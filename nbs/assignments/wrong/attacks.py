# %% memory: forgets (no g)
def memory_attack(net, x, y, eps, steps, decay):
    toward, at = (1 - 2*y).view(-1, 1, 1, 1).to(x.dtype), x.clone()
    for _ in range(steps):
        at = at + eps/steps*toward*slope(net, at).sign()
        at = torch.minimum(torch.maximum(at, x - eps), x + eps).clamp(0, 1)
    return at

# %% memory: goes the wrong way
def memory_attack(net, x, y, eps, steps, decay):
    toward, g, at = (2*y - 1).view(-1, 1, 1, 1).to(x.dtype), torch.zeros_like(x), x.clone()
    for _ in range(steps):
        now = slope(net, at)
        g = decay*g + now/now.abs().mean((1, 2, 3), keepdim=True).clamp(min=1e-30)
        at = (x + (at + eps/steps*toward*g.sign() - x).clamp(-eps, eps)).clamp(0, 1)
    return at

# %% memory: each step as long as eps
def memory_attack(net, x, y, eps, steps, decay):
    toward, g, at = (1 - 2*y).view(-1, 1, 1, 1).to(x.dtype), torch.zeros_like(x), x.clone()
    for _ in range(steps):
        now = slope(net, at)
        g = decay*g + now/now.abs().mean((1, 2, 3), keepdim=True).clamp(min=1e-30)
        at = (at + eps*toward*g.sign()).clamp(0, 1)
    return at

# %% memory: everything is pushed up, fakes too
def memory_attack(net, x, y, eps, steps, decay):
    g, at = torch.zeros_like(x), x.clone()
    for _ in range(steps):
        now = slope(net, at)
        g = decay*g + now/now.abs().mean((1, 2, 3), keepdim=True).clamp(min=1e-30)
        at = (x + (at + eps/steps*g.sign() - x).clamp(-eps, eps)).clamp(0, 1)
    return at

# %% memory: leaves [0, 1]
def memory_attack(net, x, y, eps, steps, decay):
    toward, g, at = (1 - 2*y).view(-1, 1, 1, 1).to(x.dtype), torch.zeros_like(x), x.clone()
    for _ in range(steps):
        now = slope(net, at)
        g = decay*g + now/now.abs().mean((1, 2, 3), keepdim=True).clamp(min=1e-30)
        at = x + (at + eps/steps*toward*g.sign() - x).clamp(-eps, eps)
    return at

# %% fall: wrong from the start counts as 0
def first_fall(epsilons, right):
    wrong = ~np.asarray(right, bool)
    return np.where(wrong.any(0), np.asarray(epsilons, float)[wrong.argmax(0)], np.inf)

# %% fall: never is the largest epsilon
def first_fall(epsilons, right):
    wrong = ~np.asarray(right, bool)
    first = np.where(wrong.any(0), np.asarray(epsilons, float)[wrong.argmax(0)], epsilons[-1])
    return np.where(wrong[0], np.nan, first)

# %% fall: the last epsilon at which it was right
def first_fall(epsilons, right):
    right = np.asarray(right, bool)
    last = np.asarray(epsilons, float)[len(right) - 1 - right[::-1].argmax(0)]
    return np.where(~right[0], np.nan, np.where(right.all(0), np.inf, last))

# %% fall: counts how often it was right
def first_fall(epsilons, right):
    right, epsilons = np.asarray(right, bool), np.asarray(epsilons, float)
    count = right.sum(0)
    return np.where(~right[0], np.nan, np.where(right.all(0), np.inf, epsilons[np.minimum(count, len(epsilons) - 1)]))

# %% one: a change for each picture
def one_for_all(net, x, y, eps, steps):
    d, toward = torch.zeros_like(x), (1 - 2*y).view(-1, 1, 1, 1).to(x.dtype)
    for _ in range(steps):
        d = (d + 2*eps/steps*(toward*slope(net, (x + d).clamp(0, 1))).sign()).clamp(-eps, eps)
    return d

# %% one: fakes are pushed up, too
def one_for_all(net, x, y, eps, steps):
    d = torch.zeros_like(x[0])
    for _ in range(steps):
        d = (d + 2*eps/steps*slope(net, (x + d).clamp(0, 1)).mean(0).sign()).clamp(-eps, eps)
    return d

# %% one: made for the first picture
def one_for_all(net, x, y, eps, steps):
    d, toward = torch.zeros_like(x[0]), (1 - 2*y).view(-1, 1, 1, 1).to(x.dtype)
    for _ in range(steps):
        push = (toward*slope(net, (x + d).clamp(0, 1)))[0]
        d = (d + 2*eps/steps*push.sign()).clamp(-eps, eps)
    return d

# %% one: not cut to eps
def one_for_all(net, x, y, eps, steps):
    d, toward = torch.zeros_like(x[0]), (1 - 2*y).view(-1, 1, 1, 1).to(x.dtype)
    for _ in range(steps):
        d = d + 2*eps/steps*(toward*slope(net, (x + d).clamp(0, 1))).mean(0).sign()
    return d

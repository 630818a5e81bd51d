"""What `deepfake-course fit` does: faces of a database, people held out, a network trained and measured. Written by hand."""
from dataclasses import asdict, replace
from functools import partial

import pandas as pd

from .intra_database import find_faces, load_databases, make_folds
from .metrics import bootstrap_ci, pool_clips
from .samples import load_samples
from .training import FitSettings, NetDetector, TinyNet

EVERY = 25  # steps between checkpoints


def network(net, side):
    """What makes a fresh network of this name, for faces of this side."""
    if net == "tiny":
        return TinyNet
    from . import mesonet

    return partial({"meso4": mesonet.Meso4, "mesoinception4": mesonet.MesoInception4}[net], side, 0.1)


def changes(preset):
    """Changes of lesson 17 for training, or None."""
    if preset == "none":
        return None
    from .mesonet import _changed

    return partial(_changed, preset)


def detector(net, settings, side, frames, loss, augment, folder, device):
    """What is trained: a network on faces; lesson 26's or 27's head on what a frozen network says of them."""
    more = dict(folder=folder, every=EVERY, on=device, progress=True)
    if net not in ("triplet", "asrid"):
        return NetDetector(network(net, side), settings, side, frames, loss=loss, augment=changes(augment), **more)
    if loss != "bce" or augment != "none":
        raise ValueError(f"--net {net} has its own loss and sees features: it takes no --loss and no --augment")
    if net == "triplet":
        from .metric_learning import TripletDetector

        return TripletDetector("logistic", "course", settings, k=frames, **more)
    from .attention import AsridDetector

    return AsridDetector(replace(settings, channels_last=False), side, frames, **more)


def manifest(name, size, data):
    """The manifest of a sample database, or of the one database in the user's folder."""
    if data is None:
        return load_samples(name, size)
    found = load_databases(data, clips=None)
    if len(found) > 1:
        raise ValueError(f"{data} holds {len(found)} databases: give the folder of one, {', '.join(found)}")
    return next(iter(found.values()))


def sides(rows, folds, watch, seed):
    """Rows to learn from, to watch for early stopping (or None), to measure on; no person on two sides."""
    if not rows["face"].any():
        raise ValueError(f"no face was found in any of {len(rows)} frames: look at some of them")
    rows = rows[rows["face"]].reset_index(drop=True)
    fold = make_folds(rows, "identity", folds, seed)
    return rows[fold > watch], rows[fold == 1] if watch else None, rows[fold == 0]


def run(name, size, data, settings, frames, side, folds, folder, out, device, net="tiny", loss="bce", augment="none"):
    """Train, measure people held out, and write the weights; one row of facts a measure."""
    df, settings = manifest(name, size, data), FitSettings(**settings)
    rows = find_faces(df, k=frames)
    watch = bool(settings.patience) or settings.schedule == "plateau"
    learn, watched, held_out = sides(rows, folds, watch, 0)
    check_measurable(held_out, folds)
    made = detector(net, settings, side, frames, loss, augment, folder, device)
    made.fit(learn, held_out=watched)
    told = measures(made, held_out)
    facts = {"data": df.attrs["tier"], "settings": asdict(settings), "frames": frames, "held out": told,
             "people held out": sorted(set(held_out["target"])), "loss": loss, "augment": augment,
             "epochs": len(made.history_), "learned from": f"{learn['path'].nunique()} clips, {len(learn)} faces"}
    if out is not None:
        made.save(out, **facts)
    return [{"data": df.attrs["tier"], "trained_on": learn["path"].nunique(), "epochs": len(made.history_), **row}
            for row in told]


def check_measurable(rows, folds):
    """Refuse before anything is trained what could not be measured afterwards."""
    clips = rows[rows["face"]].groupby("path")["label"].first().value_counts().reindex([0, 1], fill_value=0)
    if clips.min() < 2:
        raise ValueError(f"the people held out have {clips[0]} real and {clips[1]} fake clips with faces, and an "
                         f"interval needs two of each: take fewer --folds than {folds}, or more clips")  # fmt: skip


def measures(detector, rows):
    """Log-loss and AUC of clips of people held out, with intervals over clips."""
    examples = detector._examples(rows)
    score = pool_clips(examples.clip, detector.score(examples.x))
    y = pd.Series(examples.y).groupby(examples.clip).first()[score.index].to_numpy()
    told = {metric: bootstrap_ci(y, score.to_numpy(), metric=metric, stratified=True) for metric in ("auc", "log_loss")}
    return [{"measure": f"{metric} of clips", "value": round(value, 4), "low": round(low, 4), "high": round(high, 4),
             "n": len(y)} for metric, (value, low, high) in told.items()]  # fmt: skip

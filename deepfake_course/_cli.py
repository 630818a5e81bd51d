"""The console script `deepfake-course`. Written by hand; the work is done in the lessons' modules.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 stopped with Ctrl-C. A user's mistake is one line on
standard error; a traceback means a fault of the course. With --json nothing else is on standard output.
"""
import functools
import json
import os
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated, Optional

import typer

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

app = typer.Typer(
    name="deepfake-course",
    help="A teaching lab for deepfake detection, from the command line.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
results_app = typer.Typer(rich_markup_mode=None)
app.add_typer(results_app, name="results")
samples_app = typer.Typer(
    rich_markup_mode=None, no_args_is_help=True, help="The course's own databases: build, measure, list.",
    epilog="Example: deepfake-course samples check A B --size small",
)
app.add_typer(samples_app, name="samples")
assignments_app = typer.Typer(
    rich_markup_mode=None, no_args_is_help=True, help="Assignments for a class: hand out, collect, grade, give back.",
    epilog="Example: deepfake-course assignments release intra_database --class my_class",
)
app.add_typer(assignments_app, name="assignments")
Sampling = Enum("Sampling", {name: name for name in ("even", "first", "every")})
Method = Enum("Method", {name: name for name in ("mtcnn", "dlib", "viola_jones")})
Which = Enum("Which", {name: name for name in ("largest", "central", "all")})
Format = Enum("Format", {name: name for name in ("png", "jpg")})
Base = Enum("Base", {name: name for name in "ABCD"})
Size = Enum("Size", {name: name for name in ("excerpt", "small", "full")})
Plant = Enum("Plant", {name: name for name in ("size", "codec", "background")})
Kind = Enum("Kind", {name: name for name in ("grey", "points", "centred", "both", "sift", "spectrum", "traces")})
Tried = Enum("Tried", {name: name for name in ("code", "report")})
By = Enum("By", {name: name for name in ("image", "clip", "identity")})
Keep = Enum("Keep", {name: name for name in ("all", "winner", "half")})
SCHEDULES = ("constant", "tenth", "dynamic", "step", "restarts", "plateau", "one_cycle")
Schedule = Enum("Schedule", {name: name for name in SCHEDULES})
Optimiser = Enum("Optimiser", {name: name for name in ("adam", "adamw", "nadam", "rmsprop", "sgd")})
Net = Enum("Net", {name: name for name in ("tiny", "meso4", "mesoinception4", "triplet", "asrid")})
Loss = Enum("Loss", {name: name for name in ("bce", "mse", "hinge")})
CHANGES = ("none", "seed000", "seed001", "seed002", "seed003", "seed004", "mesonet")
Change = Enum("Change", {name: name for name in CHANGES})
Draw = Enum("Draw", {name: name for name in ("pictures", "videos")})
STOPPED = "stopped; what was finished is kept, and the same command goes on from there"
Names = Annotated[
    Optional[list[Base]], typer.Argument(metavar="NAME", help="A, B, C or D; all four by default.")
]
Json = Annotated[bool, typer.Option("--json", help="Print rows as JSON and nothing else.")]


def _tell(message):
    typer.echo(f"deepfake-course: {message}", err=True)


def _explain(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def _interrupted(error) -> bool:
    """True if Ctrl-C is the exception or behind it: a library's import may wrap it in its own."""
    seen = []
    while error is not None and error not in seen:
        if isinstance(error, KeyboardInterrupt):
            return True
        seen.append(error)
        error = error.__cause__ or error.__context__
    return False


def friendly(command):
    """Turn a user's mistake into one line and an exit code."""

    @functools.wraps(command)
    def run(*args, **kwargs):
        try:
            return command(*args, **kwargs)
        except (KeyboardInterrupt, ImportError, SystemError) as error:
            if not _interrupted(error):
                raise
            _tell(STOPPED)
            raise typer.Exit(130) from None
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None
        except (ValueError, OSError, FloatingPointError) as error:  # the last: a training that went astray
            _tell(_explain(error))
            raise typer.Exit(1) from None

    return run


def _print_json(rows):
    plain = "utf" not in (getattr(sys.stdout, "encoding", None) or "utf").lower()  # backslashes that JSON knows
    typer.echo(json.dumps(rows, indent=1, ensure_ascii=plain, allow_nan=False))


def _print_table(rows, columns):
    texts = [[str(row.get(c, "")) if row.get(c) is not None else "-" for c in columns] for row in rows]
    widths = [max(len(line[i]) for line in [columns, *texts]) for i in range(len(columns))]
    for line in [columns, *texts]:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())


@app.command(epilog="Example: deepfake-course doctor, or for a database: deepfake-course doctor Celeb-DF-v2")
@friendly
def doctor(
    folder: Annotated[
        Optional[Path],
        typer.Argument(metavar="[DATA_DIR]", exists=True, file_okay=False,
                       help="A database, or a folder of several: what it is, whether it is whole, what leaks."),
    ] = None,
    json_: Json = False,
):
    """Say what this machine has, what is missing and what to do; or the same of a database."""
    from . import _doctor

    rows = list(_doctor.check() if folder is None else _doctor.check_data(folder))
    if json_:
        _print_json(rows)
    for row in [] if json_ else rows:
        mark = "ok  " if row["ok"] else "FAIL" if row["required"] else "note"
        typer.echo(f"{mark}  {row['what']:28}{row['state']}")
        if row["remedy"]:
            typer.echo(f"      {'':28}-> {row['remedy']}")
    faults = [row["what"] for row in rows if row["required"] and not row["ok"]]
    if faults:
        _tell(f"{len(faults)} to mend: {', '.join(faults)}")
        raise typer.Exit(1)


def _folder(text: str) -> Path:
    """The value of --out; an empty one would mean the current folder."""
    if not text.strip():
        raise typer.BadParameter("the folder has no name; write . for the current folder")
    return Path(text)


@app.command(epilog='Example: deepfake-course faces interview.mp4 "holiday pictures" --out faces --frames 30')
@friendly
def faces(
    context: typer.Context,
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", exists=True, help="Clips, pictures, or folders of them.")
    ],
    out: Annotated[
        Path, typer.Option(metavar="DIR", parser=_folder, help="Gets faces.csv and a folder of crops for each file.")
    ],
    frames: Annotated[Optional[int], typer.Option(min=1, help="Frames of a clip to look at.")] = 30,
    sampling: Annotated[
        Sampling, typer.Option(help="Which frames: evenly spaced, the first, or every --step-th.")
    ] = Sampling.even,
    step: Annotated[Optional[int], typer.Option(min=1, help="For --sampling every.")] = None,
    method: Annotated[Method, typer.Option(help="Face detector.")] = Method.mtcnn,
    min_face: Annotated[
        Optional[float], typer.Option(help="Smallest face in pixels; a share of the picture by default.")
    ] = None,
    min_prob: Annotated[float, typer.Option(min=0, max=1, help="Least probability of a face (mtcnn).")] = 0.9,
    which: Annotated[Which, typer.Option(help="Of several faces in a frame, take these.")] = Which.largest,
    margin: Annotated[float, typer.Option(min=0, help="Added to the longer side of the box, as a share.")] = 0.3,
    size: Annotated[int, typer.Option(min=16, help="Side of a crop in pixels.")] = 224,
    align: Annotated[bool, typer.Option("--align", help="Turn the eyes level.")] = False,
    format_: Annotated[Format, typer.Option("--format", help="png is exact, jpg is small.")] = Format.png,
    settings: Annotated[
        Optional[Path],
        typer.Option(metavar="FILE", exists=True, dir_okay=False,
                     help="Settings as JSON, such as an earlier run's report.json; options given here win."),
    ] = None,
    cache: Annotated[bool, typer.Option(help="Keep finished parts in the cache, to go on after a stop.")] = True,
    json_: Json = False,
):
    """Take faces out of clips and pictures: crops, boxes, 68 landmarks, and an honest count."""
    from dataclasses import asdict

    for path in paths:
        if not path.is_file() and not path.is_dir():  # a pipe or a device: reading it could wait for ever
            raise typer.BadParameter(f"{path} is neither a file nor a folder", param_hint="'PATH...'")
    chosen = {
        "frames": ("k", frames), "sampling": ("how", sampling.value), "step": ("step", step),
        "method": ("method", method.value), "min_face": ("min_face", min_face), "min_prob": ("min_prob", min_prob),
        "which": ("faces", which.value), "margin": ("margin", margin), "size": ("size", size),
        "align": ("align", align), "format_": ("ext", format_.value),
    }
    values = dict(chosen.values())
    if settings:
        given = {key for name, (key, _) in chosen.items() if context.get_parameter_source(name).name == "COMMANDLINE"}
        values |= {key: value for key, value in _read_settings(settings).items() if key not in given}
    if values["how"] == "every" and values["step"] is None:
        raise typer.BadParameter("'every' needs --step, such as --step 10", param_hint="'--sampling'")
    from .faces import extract_many

    table, reports, failures = extract_many(paths, out, cache=cache, **values)
    if json_:
        failed = [{"source": source, "error": why} for source, why in failures.items()]
        _print_json([asdict(report) for report in reports] + failed)
    else:
        for report in reports:
            typer.echo(str(report))
        typer.echo(f"{len(table)} faces of {table['source'].nunique()} files are in {out / 'faces.csv'}")
    for source, why in failures.items():
        name, why = Path(source).name, " ".join(why.split())
        _tell(why if name in why else f"{name}: {why}")
    if failures:
        raise typer.Exit(1)


def _read_settings(path):
    from dataclasses import fields

    from .faces import FaceSettings

    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    values = values.get("settings", values) if isinstance(values, dict) else values
    known = {field.name for field in fields(FaceSettings)}
    if not isinstance(values, dict) or set(values) - known:
        raise ValueError(f"{path} may hold these settings and no others: {', '.join(sorted(known))}")
    return values


@app.command(epilog="Example: deepfake-course bench ground --json > bench.json")
@friendly
def bench(
    group: Annotated[
        Optional[str], typer.Argument(metavar="[GROUP]", help="Group of rows; all groups by default.")
    ] = None,
    only: Annotated[Optional[list[str]], typer.Option(help="Measure this row only (may be given again).")] = None,
    json_: Json = False,
):
    """Measure the course's fast ways against the obvious ways; ratios, larger is better."""
    from . import _bench

    rows = _bench.run(group, only)
    if json_:
        _print_json(rows)
    else:
        typer.echo(_bench.machine())
        shown = [{**row, "ratio": f"{row['ratio']:.1f} ({row['low']:.1f} to {row['high']:.1f})",
                  "met": "yes" if row["ratio"] >= row["target"] else "NO",
                  "equal": "yes" if row["equal"] else "NO"} for row in rows]
        _print_table(shown, ["name", "ratio", "target", "met", "equal", "against", "note"])
    different = [row["name"] for row in rows if not row["equal"]]
    if different:
        _tell(f"both ways do not agree: {', '.join(different)}")
        raise typer.Exit(1)


@results_app.callback(invoke_without_command=True, epilog="Example: deepfake-course results --json")
@friendly
def results(
    context: typer.Context,
    verify: Annotated[
        Optional[str], typer.Option(metavar="NAME", help="Recompute one recorded row and compare.")
    ] = None,
    json_: Json = False,
):
    """List the recorded headline results, verify one, or recompute a lesson's."""
    if context.invoked_subcommand:
        if verify is not None:
            raise typer.BadParameter("give either --verify or run, not both", param_hint="'--verify'")
        if json_:
            raise typer.BadParameter("put --json after run: results run LESSON --json", param_hint="'--json'")
        return
    from . import _results

    if verify is not None:
        row, fresh, same = _results.verify(verify)
        if json_:
            _print_json([{"name": row["name"], "recorded": row["value"], "recomputed": fresh.value, "same": same}])
        else:
            found = f"recorded {row['value']:.6g}, recomputed {fresh.value:.6g}"
            typer.echo(f"{row['name']}: {found}: {'same' if same else 'DIFFERENT'}")
        raise typer.Exit(0 if same else 1)
    rows = [{key: row[key] for key in _results.KEYS} for row in _results.load()]
    _show_results(rows, json_)


def _show_results(rows, json_):
    from . import _results

    if json_:
        _print_json([{key: row[key] for key in _results.KEYS} for row in rows])
        return
    shown = [row | {"value": f"{row['value']:.3f}",
                    "interval": None if row["low"] is None else f"{row['low']:.3f} to {row['high']:.3f}",
                    "baseline": None if row["baseline"] is None else f"{row['baseline']:.3f}",
                    "report": row["seed_report"]} for row in rows]
    _print_table(shown, ["lesson", "name", "value", "interval", "n", "baseline", "report", "data", "weights"])


@results_app.command("run", epilog="Example: deepfake-course results run metrics")
@friendly
def results_run(
    lesson: Annotated[str, typer.Argument(metavar="LESSON", help="Module name of the lesson, such as metrics.")],
    force: Annotated[bool, typer.Option(help="Recompute rows that are up to date, too.")] = False,
    json_: Json = False,
):
    """Recompute a lesson's headline rows into nbs/results.json; goes on where it was stopped."""
    from . import _results

    _show_results(_results.run(lesson, force), json_)


@app.command(epilog="Example: deepfake-course curriculum --json")
@friendly
def curriculum(json_: Json = False):
    """Resolve every name in nbs/curriculum.csv and print how much of the curriculum is delivered."""
    from . import _curriculum

    if json_:
        _print_json(_curriculum.report(json=True))
    else:
        typer.echo(_curriculum.report(json=False))
    problems = _curriculum.report(json=True)["problems"]
    if problems:
        _tell(f"{len(problems)} names do not resolve")
        raise typer.Exit(1)


def _shares(text: str) -> tuple:
    """The value of --pca: shares of variance with commas between them; 'none' is no PCA."""
    try:
        shares = tuple(None if part.strip() == "none" else float(part) for part in text.split(","))
    except ValueError:
        shares = (0.0,)
    if len(set(shares)) < len(shares) or not all(share is None or 0 < share < 1 for share in shares):
        raise typer.BadParameter("shares lie between 0 and 1, each once, with commas between them: none,0.95")
    return shares


@app.command(epilog="Example: deepfake-course grid A --by identity --pca none,0.95 --jobs 2")
@friendly
def grid(
    name: Annotated[
        Optional[Base], typer.Argument(metavar="[NAME]", help="Sample database A, B, C or D; or give --data.")
    ] = None,
    data: Annotated[
        Optional[Path],
        typer.Option(metavar="DIR", exists=True, file_okay=False, help="Folder of one database of your own."),
    ] = None,
    kind: Annotated[Kind, typer.Option(help="What the classifiers get to see of a face.")] = Kind.grey,
    which: Annotated[Tried, typer.Option(help="The grid as report 002's code had it, or as its text says.")] = (
        Tried.code
    ),
    by: Annotated[By, typer.Option(help="What must not be in two folds.")] = By.identity,
    folds: Annotated[int, typer.Option(min=2, help="Number of folds.")] = 5,
    pca: Annotated[
        tuple, typer.Option(metavar="SHARES", parser=_shares, help="Shares of variance to keep; none is no PCA.")
    ] = "none,0.90,0.95,0.99",
    keep: Annotated[
        Keep, typer.Option(help="All cells in all folds; only those that can still win; or the better half each time.")
    ] = Keep.winner,
    trees: Annotated[bool, typer.Option("--trees", help="Also random forest and gradient boosting.")] = False,
    family: Annotated[
        Optional[list[str]], typer.Option(metavar="NAME", help="Search this family only (may be given again).")
    ] = None,
    frames: Annotated[int, typer.Option(min=1, help="Frames of each clip.")] = 10,
    clips: Annotated[int, typer.Option(min=2, help="At most so many clips of --data, half of them fake.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Of the folds.")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    json_: Json = False,
):
    """Search report 002's grid by cross-validation: the best of each family, AUC with interval."""
    if (name is None) == (data is None):
        raise typer.BadParameter("name a sample database, A to D, or give --data DIR; one of the two",
                                 param_hint="'[NAME]'")
    from . import intra_database as lesson

    tried = lesson.families(which.value, trees)
    if set(family or []) - set(tried):
        unknown = ", ".join(sorted(set(family) - set(tried)))
        raise ValueError(f"there is no family {unknown}; there are: {', '.join(tried)}")
    tried = {one: tried[one] for one in tried if one in (family or tried)}
    found = lesson.load_databases(data, clips) if data else lesson.load_databases()
    if data and len(found) > 1:
        raise ValueError(f"{data} holds {len(found)} databases ({', '.join(found)}): give the folder of one")
    rows = _faces_of(next(iter(found.values())) if data else found[name.value], frames)
    seen = rows[rows["face"]].reset_index(drop=True)
    x, y = lesson.landmark_features(rows, kind.value)[rows["face"]], seen["label"].to_numpy()
    fold = lesson.make_folds(seen, by.value, folds, seed)
    before = (lesson.BagOfWords(),) * (kind is Kind.sift)
    cells = lesson.grid_search(x, y, fold, tried, pca, before, keep.value, jobs, progress=True)
    table = lesson.table_1(cells, tried, x, y, fold, seen["path"], before)
    _show_grid(rows, cells, table, {"kind": kind.value, "by": by.value}, json_)


def _faces_of(df, frames):
    """Faces of a manifest; clips that cannot be read are told of in one line."""
    import warnings

    from .intra_database import find_faces

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*cannot be read and are left out")
        rows = find_faces(df, frames)
    lost = rows.attrs["unreadable"]
    if lost:
        path, why = next(iter(lost.items()))
        _tell(f"{len(lost)} of {len(df)} clips cannot be read and are left out, such as {path}: {why}")
    return rows


def _show_grid(rows, cells, table, settings, json_):
    whole = settings | {
        "data": rows.attrs["tier"], "clips": int(rows["path"].nunique()), "frames": len(rows),
        "faceless": int((~rows["face"]).sum()), "unreadable": len(rows.attrs["unreadable"]),
    }
    if json_:
        best = {name: row["params"] for name, row in cells.loc[cells.groupby("family")["auc"].idxmax()]
                .set_index("family").iterrows()}
        _print_json([
            whole | {"family": name, "pca": None if row["PCA"] == "no" else float(row["PCA"]),
                     "params": {key: _plain(value) for key, value in best[name].items()},
                     "auc": float(row["AUC (CV)"]), "low": float(row["low"]), "high": float(row["high"]),
                     "cells": int((cells["family"] == name).sum())}
            for name, row in table.iterrows()
        ])
        return
    typer.echo(", ".join(f"{key} {value}" for key, value in whole.items()))
    _print_table([
        {"family": name, "PCA": row["PCA"], "parameters": row["parameters"], "AUC (CV)": f"{row['AUC (CV)']:.4f}",
         "interval": f"{row['low']:.3f} to {row['high']:.3f}"} for name, row in table.iterrows()
    ], ["family", "PCA", "parameters", "AUC (CV)", "interval"])


def _plain(value):
    return value.item() if hasattr(value, "item") else value


@app.command(epilog="Example: deepfake-course pretrain --people 768 --steps 3000 --out coursenet.safetensors")
@friendly
def pretrain(
    out: Annotated[Path, typer.Option(metavar="FILE", help="Gets the weights.")],
    people: Annotated[int, typer.Option(min=2, help="Rendered people, from seed 100000 on.")] = 768,
    steps: Annotated[int, typer.Option(min=1, help="Batches of 64 faces.")] = 3000,
    seed: Annotated[int, typer.Option(min=0, help="Of the order, the changes and the first weights.")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Processes that render.")] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    json_: Json = False,
):
    """Train a CourseNet on rendered people; goes on where it was stopped."""
    from .pretraining import PretrainSettings, pretrain as train

    if out.suffix != ".safetensors" or not out.absolute().parent.is_dir():
        raise typer.BadParameter("FILE ends in .safetensors, in a folder that exists", param_hint="'--out'")
    losses = train(PretrainSettings(people=people, steps=steps, seed=seed), out, jobs, device)
    last = losses.tail(100).mean().round(3).to_dict()
    row = {"file": str(out), "people": people, "steps": steps} | last
    if json_:
        _print_json([row])
    else:
        _print_table([row], list(row))


@app.command(epilog="Example: deepfake-course fit A --epochs 6 --schedule one_cycle --folder runs --out a.safetensors")
@friendly
def fit(
    name: Annotated[Optional[Base], typer.Argument(metavar="NAME", help="Sample database: A, B, C or D.")] = None,
    data: Annotated[
        Optional[Path],
        typer.Option(metavar="DIR", exists=True, file_okay=False, help="Instead of NAME, the folder of one of your own."),
    ] = None,
    size: Annotated[Size, typer.Option(help="Size of the sample database.")] = Size.excerpt,
    net: Annotated[Net, typer.Option(help="Lesson 22's TinyNet, a network of lesson 23, triplets (26), or asrid (27).")] = Net.tiny,
    loss: Annotated[Loss, typer.Option(help="What is made small, see lesson 22.")] = Loss.bce,
    augment: Annotated[Change, typer.Option(help="Changes of the training faces, see lesson 17; mesonet: lesson 23's.")] = (
        Change.none
    ),
    frames: Annotated[int, typer.Option(min=1, help="Frames of each clip.")] = 6,
    side: Annotated[int, typer.Option(min=16, help="Side of a face in pixels.")] = 128,
    epochs: Annotated[int, typer.Option(min=1, help="How often about every face is shown.")] = 6,
    batch: Annotated[int, typer.Option(min=1, help="Faces a step.")] = 16,
    accumulate: Annotated[int, typer.Option(min=1, help="Parts that a batch is computed in, to save memory.")] = 1,
    rate: Annotated[float, typer.Option(help="Highest learning rate.")] = 5e-3,
    schedule: Annotated[Schedule, typer.Option(help="How the rate changes, see lesson 22.")] = Schedule.one_cycle,
    every: Annotated[
        Optional[int], typer.Option(min=1, help="Steps to the next drop of the rate, with --schedule tenth.")
    ] = None,
    optimiser: Annotated[Optimiser, typer.Option(help="What takes the steps.")] = Optimiser.adamw,
    weight_decay: Annotated[float, typer.Option(help="Pull of the weights towards 0.")] = 0.01,
    sampling: Annotated[Draw, typer.Option(help="Whether each picture or each clip is equally likely.")] = Draw.pictures,
    per_clip: Annotated[int, typer.Option(min=1, help="Pictures of a clip at a time, with --sampling videos.")] = 1,
    balanced: Annotated[bool, typer.Option(help="Real and fake equally often.")] = True,
    patience: Annotated[
        Optional[int],
        typer.Option(min=1, help="Stop after so many epochs without progress on further people held out for that."),
    ] = None,
    folds: Annotated[int, typer.Option(min=3, help="The people are dealt into so many folds; one is held out.")] = 4,
    precision: Annotated[str, typer.Option(help="32-true, 64-true, bf16-mixed or bf16-true.")] = "32-true",
    threads: Annotated[Optional[int], typer.Option(min=1, help="Of the processor.")] = 1,
    seed: Annotated[Optional[int], typer.Option(min=0, help="By default the hash of settings and data.")] = None,
    folder: Annotated[
        Optional[Path], typer.Option(metavar="DIR", file_okay=False, help="Keeps checkpoints; a run that is there goes on.")
    ] = None,
    out: Annotated[Optional[Path], typer.Option(metavar="FILE", help="Gets the weights, with what they rest on.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    json_: Json = False,
):
    """Train a small detector and measure it on people held out; with --folder, a killed run goes on."""
    if (name is None) == (data is None):
        raise typer.BadParameter("give a sample database (A, B, C or D) or --data DIR, one of the two", param_hint="'NAME'")
    if out is not None and (out.suffix != ".safetensors" or not out.absolute().parent.is_dir()):
        raise typer.BadParameter("FILE ends in .safetensors, in a folder that exists", param_hint="'--out'")
    from . import _fit

    if every and schedule is not Schedule.tenth:
        raise typer.BadParameter("only --schedule tenth drops every so many steps", param_hint="'--every'")
    options = {"every": every} if every else {}
    settings = dict(epochs=epochs, batch=batch, schedule_options=options, accumulate=accumulate, rate=rate, schedule=schedule.value,
                    optimiser=optimiser.value, weight_decay=weight_decay, sampling=sampling.value, per_clip=per_clip,
                    balanced=balanced, patience=patience, precision=precision, threads=threads, seed=seed)
    rows = _fit.run(name and name.value, size.value, data, settings, frames, side, folds, folder, out, device,
                    net.value, loss.value, augment.value)
    if json_:
        _print_json(rows)
    else:
        _print_table(rows, list(rows[0]))


def _epsilons(text: str) -> tuple:
    """The value of --epsilons: numbers in 255ths with commas between them."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"numbers with commas between them, such as 0,1,2,4, not {text!r}") from None
    if not all(0 <= value <= 255 for value in values):
        raise typer.BadParameter(f"each is from 0 to 255, not {text!r}")
    return values


@app.command(epilog="Example: deepfake-course attack --detector course --data A --epsilons 0,1,2")
@friendly
def attack(
    detector: Annotated[
        str, typer.Option(metavar="WHICH", help="course, weights of `fit` (.safetensors), or FILE.py:NAME of your own.")
    ],
    data: Annotated[str, typer.Option(metavar="DATA", help="Sample database (A, B, C or D), or the folder of one of your own.")],
    surrogate: Annotated[
        Optional[str], typer.Option(metavar="WHICH", help="For a detector without slopes: attack this one instead, and transfer.")
    ] = None,
    size: Annotated[Size, typer.Option(help="Size of the sample database.")] = Size.excerpt,
    frames: Annotated[int, typer.Option(min=1, help="Frames of each clip.")] = 1,
    side: Annotated[Optional[int], typer.Option(min=16, help="Side of a face in pixels; by default the detector's own.")] = None,
    epsilons: Annotated[
        str, typer.Option(metavar="LIST", parser=_epsilons, help="Largest change of a pixel, in 255ths.")
    ] = "0,1,2,4",
    json_: Json = False,
):
    """Attack a detector with FGSM and PGD: accuracy by clip for each epsilon, the protocol of lesson 30."""
    name, folder = (data, None) if data in Base.__members__ else (None, Path(data))
    if folder is not None and not folder.is_dir():
        raise typer.BadParameter(f"{data} is no sample database (A, B, C or D) and no folder", param_hint="'--data'")
    from . import _attack

    rows = _attack.run(detector, surrogate, name, folder, size.value, frames, side, epsilons)
    if json_:
        _print_json(rows)
    else:
        _print_table(rows, list(rows[0]))


@samples_app.command("build", epilog="Example: deepfake-course samples build A B --size small")
@friendly
def samples_build(
    names: Names = None,
    size: Annotated[Size, typer.Option(help="8 people a database, 24, or the excerpt that comes with the course.")] = (
        Size.small
    ),
    jobs: Annotated[Optional[int], typer.Option(min=1, help="Processes; one a core by default.")] = None,
    json_: Json = False,
):
    """Film, forge and encode the sample databases; goes on where it was stopped."""
    from . import _samples_check

    rows = _samples_check.build(_databases(names), size.value, jobs)
    if json_:
        _print_json(rows)
    else:
        _print_table(rows, ["name", "size", "clips", "megabytes", "seconds", "where"])


@samples_app.command("check", epilog="Example: deepfake-course samples check A B C --size small --only pattern")
@friendly
def samples_check(
    names: Names = None,
    size: Annotated[Size, typer.Option(help="Which set is measured.")] = Size.excerpt,
    only: Annotated[
        Optional[str], typer.Option(metavar="GROUPS", help="Groups of rows, with commas between them: size, detectors, "
                                    "landmarks, identities, mouths, shortcuts, pattern, speed.")
    ] = None,
    plant: Annotated[
        Optional[Plant], typer.Option(help="Plant a leak in a copy; the auditor of shortcuts must find it.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How often the detectors of the pattern are trained.")] = 3,
    json_: Json = False,
):
    """Measure the sample databases: are they as good, and as hard, as they have to be?"""
    from . import _samples_check

    chosen = None if only is None else [name.strip() for name in only.split(",")]
    rows = _samples_check.check(_databases(names), size.value, chosen, plant and plant.value, seeds)
    if json_:
        _print_json(rows)
    else:
        marks = {True: "yes", False: "NO", None: "-"}
        shown = [{**row, "met": marks[row["ok"]], "interval": None if row["low"] is None else
                  f"{row['low']:.3f} to {row['high']:.3f}"} for row in rows]
        _print_table(shown, ["name", "value", "interval", "n", "target", "met", "note"])
    missed = [row["name"] for row in rows if row["ok"] is False]
    if missed:
        _tell(f"{len(missed)} of {len(rows)} rows miss their target: {', '.join(missed)}")
        raise typer.Exit(1)


@samples_app.command("list", epilog="Example: deepfake-course samples list --json")
@friendly
def samples_list(json_: Json = False):
    """Say which sample databases are built, where, and how large they are."""
    from . import _samples_check

    rows = _samples_check.listing()
    if json_:
        _print_json(rows)
    else:
        shown = [{**row, "built": "yes" if row["built"] else "no"} for row in rows]
        _print_table(shown, ["name", "size", "built", "clips", "megabytes", "where"])


@samples_app.command("train-swap", epilog="Example: deepfake-course samples train-swap A --out swap_a.safetensors")
@friendly
def samples_train_swap(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Which swap: A, B or C.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Gets the weights; a checkpoint is kept beside it.")],
    half: Annotated[bool, typer.Option("--half", help="Compute in bfloat16.")] = False,
    json_: Json = False,
):
    """Film the actors and train a swap network on them; goes on where it was stopped."""
    from .forge import SWAPS, make_swap

    if name not in SWAPS:
        raise typer.BadParameter(f"no swap {name!r}; there are: {', '.join(SWAPS)}", param_hint="'NAME'")
    if out.suffix != ".safetensors" or not out.absolute().parent.is_dir():
        raise typer.BadParameter("FILE ends in .safetensors, in a folder that exists", param_hint="'--out'")
    notes = make_swap(out, SWAPS[name], half, progress=True).about["notes"]
    row = {"name": name, "file": str(out), "steps": SWAPS[name]["steps"], "loss": notes["loss"]}
    if json_:
        _print_json([row])
    else:
        _print_table([row], list(row))


Class = Annotated[Path, typer.Option("--class", metavar="DIR", help="Class folder: one a class and year.")]
HOMEWORK = ("intra_database", "inter_database", "transfer_learning", "metric_learning", "attacks")
Task = Enum("Task", {name: name for name in HOMEWORK})
Tasks = Annotated[Optional[list[Task]], typer.Argument(metavar="[NAME]...", help=f"{', '.join(HOMEWORK)}; all by default.")]
Unsafe = Annotated[bool, typer.Option("--unsafe", help="Run students' code without a sandbox, with your rights.")]
Jobs = Annotated[int, typer.Option(min=1, help="Sandboxes at a time.")]


def _tasks(names):
    return [name.value for name in names or Task]


def _each(names, folder, work):
    """Rows of all assignments asked for, or of all that have been collected."""
    there = {path.stem for path in Path(folder).glob("collected/*.json")}
    chosen = _tasks(names) if names else [name for name in HOMEWORK if name in there]
    if not chosen:
        raise ValueError(f"nothing has been collected in {folder} yet: `deepfake-course assignments collect` comes first")
    return [row for name in chosen for row in work(name)]


@assignments_app.command("release", epilog="Example: deepfake-course assignments release intra_database --due 2027-01-15T18:00")
@friendly
def assignments_release(
    names: Tasks = None,
    folder: Class = Path("class"),
    due: Annotated[Optional[str], typer.Option(metavar="TIME", help="As 2027-01-15T18:00, in this computer's time zone.")] = None,
    json_: Json = False,
):
    """Write the students' copies, without solutions and hidden tests, into DIR/release."""
    from datetime import datetime

    from . import _classroom

    try:
        moment = datetime.fromisoformat(due).astimezone() if due else None
    except ValueError:
        raise typer.BadParameter(f"a time is written as 2027-01-15T18:00, not {due!r}", param_hint="'--due'") from None
    rows = _classroom.release(folder, _tasks(names), moment)
    _print_json(rows) if json_ else _print_table(rows, ["assignment", "due", "file"])


@assignments_app.command("collect", epilog="Example: deepfake-course assignments collect intra_database downloads/moodle.zip")
@friendly
def assignments_collect(
    name: Annotated[Task, typer.Argument(metavar="NAME", help=f"One of {', '.join(HOMEWORK)}.")],
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", exists=True, help="Folders or zip files of submissions.")],
    folder: Class = Path("class"),
    replace: Annotated[bool, typer.Option("--replace", help="Who handed in before: the new file counts.")] = False,
    json_: Json = False,
):
    """Take submissions in: a folder with one notebook or folder a student, or an LMS's zip. Nothing vanishes."""
    from . import _classroom

    rows = _classroom.collect(folder, name.value, paths, replace)
    shown = [{**row, "notes": "; ".join([row["problem"]] * bool(row["problem"]) + row["notes"])} for row in rows]
    _print_json(rows) if json_ else _print_table(shown, ["student", "status", "file", "notes"])
    faults = sum(row["status"] == "error" for row in rows)
    if faults:
        _tell(f"{faults} of {len(rows)} files cannot be graded, see above; the others can")
        raise typer.Exit(1)


@assignments_app.command("grade", epilog="Example: deepfake-course assignments grade intra_database --jobs 2")
@friendly
def assignments_grade(names: Tasks = None, folder: Class = Path("class"), jobs: Jobs = 2, unsafe: Unsafe = False,
                      again: Annotated[bool, typer.Option(help="Also what was graded before.")] = False,
                      json_: Json = False):
    """Grade what was collected: student code in a sandbox, hidden tests in another process, marks into nbgrader."""
    from . import _classroom

    def progress(done, count):
        if sys.stderr.isatty():
            typer.echo(f"\r{done}/{count} ", nl=done == count, err=True)

    rows = _each(names, folder, lambda name: _classroom.grade(folder, name, jobs, unsafe, progress, again))
    if json_:
        _print_json(rows)
    else:
        _print_table(rows, ["assignment", "student", "code", "seconds", "problem"])


@assignments_app.command("feedback", epilog="Example: deepfake-course assignments feedback intra_database")
@friendly
def assignments_feedback(names: Tasks = None, folder: Class = Path("class"), json_: Json = False):
    """Write a page for each student with their work, their marks and your comments, into DIR/feedback."""
    from . import _classroom

    rows = _each(names, folder, lambda name: _classroom.feedback(folder, name))
    _print_json(rows) if json_ else _print_table(rows, ["assignment", "student", "file", "problem"])


@assignments_app.command("export", epilog="Example: deepfake-course assignments export --out grades.csv")
@friendly
def assignments_export(
    folder: Class = Path("class"),
    out: Annotated[Optional[Path], typer.Option(metavar="FILE", help="DIR/grades.csv by default.")] = None,
    json_: Json = False,
):
    """Write grades as CSV: a row for every file that came in, with its points or why it has none."""
    from . import _classroom

    rows = _classroom.export(folder, out)
    if json_:
        _print_json(rows)
    else:
        _print_table(rows, ["assignment", "student", "status", "points", "max", "to_mark", "late", "problem"])


@assignments_app.command("prove", epilog="Example: deepfake-course assignments prove intra_database --json")
@friendly
def assignments_prove(names: Tasks = None, unsafe: Unsafe = False, json_: Json = False):
    """Prove the graders: for each exercise the untouched release scores 0, the solution all, wrong answers nothing."""
    from . import _classroom, _grader

    rows = [row for name in _tasks(names) for row in _grader.prove(
        _classroom.source(name), _classroom.wrong(name), unsafe)]
    faults = [f"{row['assignment']}, {row['exercise']}: {text}" for row in rows if (text := _grader.unproven(row))]
    keys = ("assignment", "exercise", "release", "solution", "full", "mutants")
    if json_:
        _print_json([{key: row[key] for key in keys} for row in rows])
    else:
        _print_table([{**row, "wrong answers": len(row["mutants"]), "of them score": sum(
            one["score"] > 0 for one in row["mutants"])} for row in rows], [*keys[:-1], "wrong answers", "of them score"])
    for fault in faults:
        _tell(fault)
    if faults:
        raise typer.Exit(1)


@assignments_app.command("validate", epilog="Example: deepfake-course assignments validate intra_database.ipynb")
@friendly
def assignments_validate(
    file: Annotated[Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="Your notebook.")],
    json_: Json = False,
):
    """For students: run your notebook from the top in a new process, and say what its tests say."""
    from . import _classroom

    rows = _classroom.validate(file)
    if json_:
        _print_json(rows)
    for row in [] if json_ else rows:
        typer.echo(f"{'ok  ' if row['ok'] else 'not yet'}  {row['exercise']} ({row['points']:g} points)"
                   + (f"\n         {row['message']}" if row["message"] else ""))
    if not all(row["ok"] for row in rows):
        raise typer.Exit(1)


@assignments_app.command("rehearse", epilog="Example: deepfake-course assignments rehearse intra_database --students 30")
@friendly
def assignments_rehearse(
    names: Tasks = None,
    folder: Annotated[Path, typer.Option("--class", metavar="DIR", help="A folder that does not exist yet.")] = Path("rehearsal"),
    students: Annotated[int, typer.Option(min=3, help="Synthetic students.")] = 30,
    jobs: Jobs = 2,
    unsafe: Unsafe = False,
    json_: Json = False,
):
    """Time everything with a class that does not exist: right, wrong and untouched notebooks, whose marks are known."""
    from . import _classroom

    if folder.exists():
        raise typer.BadParameter(f"{folder} is there already; name a new folder", param_hint="'--class'")
    rows = _classroom.rehearse(folder, _tasks(names), students, jobs, unsafe, lambda row: None)
    columns = ["assignment", "students", "collect", "grade", "feedback", "seconds", "right marks"]
    _print_json(rows) if json_ else _print_table(rows, columns)
    if any(row["right marks"] != students for row in rows):
        _tell("not every mark is what the submission deserves")
        raise typer.Exit(1)


@assignments_app.command("data", hidden=True)
@friendly
def assignments_data(out: Annotated[Path, typer.Option(metavar="FILE", help="Gets the numbers.")]):
    """Make data_samples/classroom.npz anew (minutes)."""
    from ._homework import make_data

    make_data(out)


def _databases(names):
    return [base.value for base in names or Base]


def main():
    """Entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a letter the console does not have must not cost the report
            stream.reconfigure(errors="backslashreplace")
    try:
        app(prog_name="deepfake-course")
    except KeyboardInterrupt:
        _tell(STOPPED)
        sys.exit(130)
    except SystemExit as stop:
        if stop.code == 130 and getattr(stop.__context__, "__cause__", None):  # Typer's own: nothing was said yet
            _tell(STOPPED)
        raise


if __name__ == "__main__":
    main()

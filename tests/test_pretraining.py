"""What lesson 18 cannot say about itself: damaged files, interrupted work, photographs."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from deepfake_course import pretraining as pt
from deepfake_course.core import sample, sample_dir, to_batch
from deepfake_course.faces import choose, detect, landmarks
from deepfake_course.responsibility import check_files, read_card
from deepfake_course.video import read_frames

WEIGHTS = "weights/coursenet.safetensors"
PEOPLE = [300_100, 300_101, 300_102]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    "Three rendered people, two pictures each."
    folder = tmp_path_factory.mktemp("people")
    pt.gather(PEOPLE, 2, folder)
    return folder


@pytest.fixture(scope="module")
def people(folder):
    return pt.gather(PEOPLE, 2, folder)


@pytest.fixture(scope="module")
def net():
    return pt.CourseNet()


@pytest.fixture
def weights(net, tmp_path):
    path = tmp_path / "net.safetensors"
    pt._write(path, net.state_dict(), {"kind": pt.KIND})
    return path


# The committed file


def test_weights_are_small_listed_and_described():
    path = sample(WEIGHTS)
    assert path.stat().st_size <= 5_000_000
    card = check_files(read_card(path.with_suffix(".md")), path.parent)
    assert [name for name, _, _ in card.files] == [path.name]
    assert "deepfake-course pretrain" in card.command
    with safe_open(path, "np") as file:
        settings = json.loads(file.metadata()["course"])["settings"]
    assert f"--people {settings['people']} --steps {settings['steps']}" in card.command
    pt.PretrainSettings(**settings)


def test_no_training_seed_is_used_elsewhere():
    with safe_open(sample(WEIGHTS), "np") as file:
        settings = json.loads(file.metadata()["course"])["settings"]
    first, last = settings["first"], settings["first"] + settings["people"]
    assert 100_000 <= first < last <= 200_000


def test_a_changed_committed_file_is_noticed(tmp_path, monkeypatch):
    copy = tmp_path / "data_samples"
    (copy / "weights").mkdir(parents=True)
    (copy / "samples.csv").write_bytes((sample_dir() / "samples.csv").read_bytes())
    data = bytearray((sample_dir() / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (copy / WEIGHTS).write_bytes(data)
    monkeypatch.setattr("deepfake_course.core.sample_dir", lambda: copy)
    with pytest.raises(ValueError, match="was changed: `git checkout"):
        pt.CourseNet()
    (copy / WEIGHTS).unlink()
    with pytest.raises(FileNotFoundError, match="is missing"):
        pt.CourseNet(weights="auto")
    assert pt.CourseNet(weights="none").weights == "none"


# Damaged weights


@pytest.mark.parametrize("keep", [0, 4, 8, 200, 20_000, -1])
def test_a_cut_file_is_damaged(weights, net, keep):
    before = net.face.weight.clone()
    weights.write_bytes(weights.read_bytes()[:keep])
    with pytest.raises(ValueError, match="net.safetensors is damaged"):
        pt.load_weights(net, weights)
    assert torch.equal(before, net.face.weight)


def test_a_pickle_is_refused(tmp_path, net):
    path = tmp_path / "net.safetensors"
    torch.save(net.state_dict(), path)
    with pytest.raises(ValueError, match="no safetensors file"):
        pt.load_weights(net, path)


def test_weights_without_facts_and_of_another_network(tmp_path, net):
    path = tmp_path / "net.safetensors"
    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="holds 'something else', not 'CourseNet weights'"):
        pt.load_weights(net, path)
    state = net.state_dict()
    del state["face.bias"]
    pt._write(path, state, {"kind": pt.KIND})
    with pytest.raises(ValueError, match="face.bias is nothing there"):
        pt.load_weights(net, path)
    state["face.bias"] = torch.full((128,), torch.nan)
    pt._write(path, state, {"kind": pt.KIND})
    with pytest.raises(ValueError, match="not finite"):
        pt.load_weights(net, path)


def test_saving_twice_gives_the_same_bytes(net, tmp_path):
    for name in ("a", "b"):
        pt._write(tmp_path / name, net.state_dict(), {"kind": pt.KIND, "z": 1, "a": 2})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


# Bad questions


@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(3, 112, 112),
        torch.zeros(1, 1, 112, 112),
        torch.zeros(1, 3, 112, 112, dtype=torch.uint8),
        torch.zeros(1, 3, 16, 16),
    ],
)
def test_bad_batches_are_refused(net, x):
    for question in (net, net.embed, net.features):
        with pytest.raises(ValueError, match=r"CourseNet takes x \(b, 3, h, w\)"):
            question(x)


@pytest.mark.parametrize(
    "settings", [dict(people=0), dict(steps=0), dict(batch=1), dict(frames=0), dict(rate=0.0),
                 dict(first=99_999), dict(seed=-1), dict(people=2.5), dict(people=100_001)]
)
def test_bad_settings_are_refused(settings):
    with pytest.raises(ValueError):
        pt.PretrainSettings(**settings)


# Interrupted work


def test_people_that_are_there_are_not_rendered_again(folder, people):
    before = {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.iterdir()}
    again = pt.gather(PEOPLE, 2, folder)
    assert {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.iterdir()} == before
    assert all(np.array_equal(a, b) for a, b in zip(again, people))


def test_two_processes_render_the_same(folder, tmp_path):
    pt.gather(PEOPLE[:2], 2, tmp_path, workers=2)
    assert len(list(tmp_path.iterdir())) == 2
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (folder / path.name).read_bytes()


@pytest.mark.parametrize("keep", [0, 10, 2000, -5])
def test_a_damaged_person_is_named(folder, tmp_path, keep):
    path = tmp_path / "300100.npz"
    path.write_bytes((folder / path.name).read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"300100.npz is damaged .* delete it"):
        pt.gather(PEOPLE[:1], 2, tmp_path)


def test_a_person_with_another_number_of_pictures_is_not_taken(folder):
    with pytest.raises(ValueError, match="does not hold 3 pictures"):
        pt.gather(PEOPLE, 3, folder)
    with pytest.raises(ValueError, match="at least one seed"):
        pt.gather([], 3, folder)


TRAIN = """
import sys, torch
torch.set_num_threads(1)
from deepfake_course.pretraining import PretrainSettings, pretrain
settings = PretrainSettings(people=2, steps=5, frames=2, batch=4, first=300_100)
stop = int(sys.argv[2]) if len(sys.argv) > 2 else None
history = pretrain(settings, sys.argv[1], every=2, stop=stop, progress=False)
print(len(history))
"""


def train(cache, out, *stop):
    environment = os.environ | {"DEEPFAKE_COURSE_CACHE": str(cache)}
    command = [sys.executable, "-c", TRAIN, str(out), *map(str, stop)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_a_stopped_run_ends_like_one_that_was_not(tmp_path):
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    assert train(tmp_path / "a", whole) == 5
    assert train(tmp_path / "b", parts, 3) == 3 and not parts.exists()
    assert train(tmp_path / "b", parts) == 5
    assert whole.read_bytes() == parts.read_bytes()  # in other processes, to the last bit


def test_a_damaged_checkpoint_is_not_trained_on(people, tmp_path):
    settings = pt.PretrainSettings(people=3, steps=4, frames=2, batch=4, first=300_100)
    run = pt.Pretraining(settings, people, torch.device("cpu"))
    run.advance()
    path = tmp_path / "run.safetensors"
    run.save(path)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ValueError, match="run.safetensors is damaged"):
        pt.Pretraining(settings, people, torch.device("cpu")).restore(path)
    with pytest.raises(ValueError, match="holds 'CourseNet weights', not 'checkpoint'"):
        run.save_weights(path)
        run.restore(path)


# Sizes, and photographs


def test_a_face_twice_as_large_is_the_same_face(net, people):
    faces, _, _ = pt.meet(people)
    x = to_batch(faces.imgs)
    large = torch.nn.functional.interpolate(x, scale_factor=2, mode="bilinear")
    with torch.inference_mode():
        a, b = net(x), net(large)
    assert (a["emb"] * b["emb"]).sum(1).min() > 0.95
    assert (a["landmarks"] - b["landmarks"] / 2).norm(dim=2).mean() < 1


def test_photographs(net, real, record_property):
    "Real talking heads: measured and recorded; only the baseline it must beat is asserted."
    embeddings, who, errors, blind = [], [], [], []
    for clip in sorted((real / "clips").glob("fsgan_*.mp4")):
        frames = read_frames(clip).frames
        frames = frames[:: max(1, len(frames) // 12)][:12]
        found = [(f, choose(d)) for f, d in zip(frames, detect(list(frames)))]
        for frame, face in ((f, d) for f, d in found if len(d)):
            box = face.boxes[0]
            centre, side = (box[:2] + box[2:]) / 2, 1.3 * (box[2:] - box[:2]).max()
            img, points = pt.cut_face(frame, landmarks(frame, [box])[0], centre, side)
            said = net.ask(img[None])
            mean = net.mean_shape.numpy()[None] * net.SIDE - 0.5
            embeddings.append(said["emb"][0])
            who.append(clip.stem)
            errors.append(pt.landmark_errors(said["landmarks"], points[None])[0])
            blind.append(pt.landmark_errors(mean, points[None])[0])
    assert len(set(who)) >= 2 and len(who) >= 12
    same = pt.nearest_is_same(np.array(embeddings), who).mean()
    for name, value in dict(landmarks=np.mean(errors), mean_shape=np.mean(blind), same=same).items():
        record_property(name, round(float(value), 3))
    assert np.mean(errors) < np.mean(blind)

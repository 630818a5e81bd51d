"""What lesson 13 cannot show about forging: damage, interruption, every grade, and pixels that must not move."""
import json

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial import Delaunay

from deepfake_course import forge
from deepfake_course.actors import Actor, Performance, film
from deepfake_course.forge import (NETWORK, Autoencoder, Consent, FaceFrame, Take, blend, choose_frames, face_hull,
                                   load_swap, make_swap, mouth_opening, read_provenance, reenact, reenact_mouth,
                                   save_forgery, self_blend, swap_by_network, swap_faces, train_swap, transfer_colour,
                                   warp_mesh)
from deepfake_course.video import read_frames, write_clip

GRADES = ("lq", "mq", "hq")


def shoot(actor, frames=8, size=128):
    what = Performance(actor, size=size, talk=1, light="studio")
    shot = film(Actor(actor), what, np.arange(frames)/5)
    return Take(shot.clip, shot.landmarks, shot.mask, str(actor), rendered=True)


@pytest.fixture(scope="module")
def cast():
    "A target and a donor, filmed small."
    return shoot(20_019), shoot(20_001)


@pytest.fixture(scope="module")
def pair(cast):
    "A network that has seen eight frames for three steps: its faces are bad, its pixels are in place."
    return train_swap(list(cast), [cast[1].person], steps=3, batch=6)[0]


def forgeries(cast, pair):
    here, there = cast
    for grade in GRADES:
        yield swap_faces(here, there, grade, seed=3)
        yield swap_by_network(here, pair, there.person, grade, 3, Consent(here.person, there.person, "2026-01-02", "test"))
        yield reenact(here, there, grade, 3)
        yield reenact_mouth(here, there, grade, 3)


# Pixels


def test_nothing_outside_the_mask_changes_in_any_grade(cast, pair):
    for fake in forgeries(cast, pair):
        assert fake.clip.dtype == np.uint8 and fake.clip.shape == cast[0].clip.shape
        assert fake.mask.shape == fake.clip.shape[:3] and 0 <= fake.mask.min() and fake.mask.max() <= 1
        changed = (fake.clip != cast[0].clip).any(axis=-1)
        assert changed.any(axis=(1, 2)).mean() > .7, fake.record["what"]
        assert not changed[fake.mask == 0].any(), fake.record["what"]
        assert .005 < (fake.mask > 0).mean() < .5


def test_the_same_seed_makes_the_same_forgery(cast, pair):
    first, second = (list(forgeries(cast, pair)) for _ in range(2))
    assert all((a.clip == b.clip).all() and a.record == b.record for a, b in zip(first, second, strict=True))
    other = swap_faces(*cast, "lq", seed=4)
    assert (other.clip != swap_faces(*cast, "lq", seed=3).clip).any()


def test_the_target_is_left_as_it_was(cast, pair):
    before = cast[0].clip.copy(), cast[0].skin.copy(), cast[0].landmarks.copy()
    list(forgeries(cast, pair))
    assert all((a == b).all() for a, b in zip(before, (cast[0].clip, cast[0].skin, cast[0].landmarks), strict=True))


@pytest.mark.parametrize("make", [reenact, reenact_mouth])
def test_a_reenactment_is_seen_after_compression(make, cast, tmp_path):
    here, fake = cast[0], make(*cast)
    real, forged = (read_frames(write_clip(tmp_path/f"{n}.mp4", clip, 15, 23), k=8).frames.astype(int)
                    for n, clip in enumerate((here.clip, fake.clip)))
    assert abs(forged-real)[fake.mask > .5].mean() >= 1


def test_centres_of_pixels_are_whole_numbers():
    img = np.random.default_rng(0).integers(0, 255, (60, 70, 3), dtype=np.uint8)
    points = np.array([(10, 10), (50, 12), (48, 45), (12, 44), (30, 25)], float)
    moved, inside = warp_mesh(img, points, points+(4, -3), Delaunay(points).simplices)
    there = np.roll(img, (-3, 4), axis=(0, 1))
    assert (moved == there)[inside].all() and inside[7, 14] and not inside[6, 13]


def test_faces_come_back_to_the_pixels_they_left(cast):
    here = cast[0]
    frame = FaceFrame.of(here.landmarks)
    faces, moves = frame.align(here.clip, here.landmarks, 256)
    for face, move, img, marks in zip(faces, moves, here.clip, here.landmarks, strict=True):
        back = frame.unalign(face, move, img.shape[:2])
        inner = cv2.erode(face_hull(marks, img.shape), np.ones((9, 9))) > 0
        error = [abs(np.roll(back, shift, axis=(0, 1)).astype(int)-img)[inner].mean() for shift in
                 ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))]
        assert error[0] < 4 and error[0] == min(error)


def test_a_frame_is_upright_however_the_head_is_tilted(cast):
    tilted = cast[0].landmarks@np.array([[.8, .6], [-.6, .8]])
    for points in (FaceFrame.of(cast[0].landmarks).points, FaceFrame.of(tilted).points):
        assert abs(points[36:42].mean(axis=0)[1]-points[42:48].mean(axis=0)[1]) < 1e-9
        assert 0 < points.min() and points.max() < 1 and points[8, 1] > points[27, 1]
    assert np.allclose(FaceFrame.of(cast[0].landmarks).points, FaceFrame.of(tilted).points)


def test_poisson_blending_does_not_move_the_patch():
    rng = np.random.default_rng(1)
    img = cv2.GaussianBlur(rng.integers(0, 255, (81, 90, 3), dtype=np.uint8), (0, 0), 1)
    for box in ((20, 61, 20, 71), (21, 60, 18, 70), (0, 40, 0, 50)):
        mask = np.zeros(img.shape[:2], np.float32)
        mask[box[0]:box[1], box[2]:box[3]] = 1
        assert abs(blend(img, img, mask, "poisson").astype(int)-img).max() <= 1


def test_a_rim_lies_inside(cast):
    marks = cast[0].landmarks[0]
    hard = face_hull(marks, (128, 128))
    for rim in (.5, 1, 3, 8):
        soft = face_hull(marks, (128, 128), rim=rim)
        assert not soft[hard == 0].any() and soft.sum() < hard.sum()
        edge = cv2.dilate(np.float32(hard == 0), cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))) > 0
        assert soft[edge].max() < .25


def test_frames_are_chosen_as_trying_all_paths_would():
    rng = np.random.default_rng(2)
    want, have, jump = rng.random((4, 2)), rng.random((5, 2)), .15
    cost = np.linalg.norm(want[:, None]-have[None], axis=2)
    paths = np.stack(np.meshgrid(*[np.arange(5)]*4, indexing="ij"), -1).reshape(-1, 4)
    steps = jump*np.clip(abs(np.diff(paths))-1, 0, 4).sum(axis=1)
    best = paths[(cost[np.arange(4), paths].sum(axis=1)+steps).argmin()]
    assert choose_frames(want, have, jump).tolist() == best.tolist()


# Bad input


def test_takes_refuse_what_cannot_be_forged(cast):
    here = cast[0]
    gone = here.landmarks.copy()
    gone[2, 40] = np.nan
    with pytest.raises(ValueError, match=r"none in the frames \[2\]"):
        Take(here.clip, gone, here.skin, "x")
    with pytest.raises(ValueError, match="8 frames need landmarks"):
        Take(here.clip, here.landmarks[:7], here.skin, "x")
    with pytest.raises(ValueError, match=r"leaves the picture in the frames \[0\]"):
        Take(here.clip[:1], here.landmarks[:1]-70, None, "x")
    with pytest.raises(ValueError, match="uint8, not float64"):
        Take(here.clip/255, here.landmarks, here.skin, "x")
    with pytest.raises(ValueError, match="they need one size"):
        Take(here.clip, here.landmarks, here.skin[:, :64], "x")
    with pytest.raises(ValueError, match="mask is empty"):
        Take(here.clip, here.landmarks, np.where(np.arange(8)[:, None, None] == 3, 0, here.skin), "x")


def test_pictures_of_different_sizes_are_refused(cast):
    img = cast[0].clip[0]
    with pytest.raises(ValueError, match="one size"):
        blend(img, img[1:], np.ones(img.shape[:2]))
    with pytest.raises(ValueError, match='how is "alpha" or "poisson"'):
        blend(img, img, np.ones(img.shape[:2]), "magic")
    with pytest.raises(ValueError, match="the mask is empty"):
        transfer_colour(img, img, np.zeros(img.shape[:2]))
    with pytest.raises(ValueError, match='"none", "mean", "lab" or "light"'):
        transfer_colour(img, img, np.ones(img.shape[:2]), "warm")
    with pytest.raises(ValueError, match="lie outside the picture"):
        self_blend(img, cast[0].landmarks[0]+900)


def test_donors_of_another_size_and_length_are_welcome(cast):
    big = shoot(20_001, frames=3, size=160)
    for make in (swap_faces, reenact, reenact_mouth):
        fake = make(cast[0], big)
        assert fake.clip.shape == cast[0].clip.shape and (fake.clip != cast[0].clip).any()


def test_a_face_without_a_skin_mask_is_forged_inside_its_hull(cast):
    here = cast[0]
    bare = Take(here.clip, here.landmarks, None, here.person, rendered=True)
    fake = swap_faces(bare, cast[1])
    hull = np.stack([face_hull(marks, (128, 128), .6) for marks in here.landmarks])
    assert not fake.mask[hull == 0].any()


def test_nobody_is_forged_unasked(cast, pair):
    here, there = cast
    ben = Take(there.clip, there.landmarks, there.skin, "Ben")
    for make in (swap_faces, reenact, reenact_mouth):
        with pytest.raises(ValueError, match="ask Ben first"):
            make(here, ben)
        assert make(here, ben, consent=Consent(here.person, "Ben", "2026-01-02", "test")).clip.any()
    with pytest.raises(ValueError, match=f"ask {there.person} first"):
        swap_by_network(here, pair, there.person)
    with pytest.raises(ValueError, match="names target and donor"):
        Consent("", "Ben", "2026-01-02", "test")


# Training


def weights(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


def test_training_goes_on_where_it_was_stopped(cast, tmp_path, monkeypatch):
    ask = dict(takes=list(cast), donors=[cast[1].person], steps=5, batch=6)
    whole, losses = train_swap(**ask)
    monkeypatch.setattr(forge, "_EVERY", 2)
    rate, calls = forge._rate, []

    def stop(step, steps):
        calls.append(step)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return rate(step, steps)

    monkeypatch.setattr(forge, "_rate", stop)
    file = tmp_path/"half.checkpoint"
    with pytest.raises(KeyboardInterrupt):
        train_swap(**ask, checkpoint=file)
    again, more = train_swap(**ask, checkpoint=file)
    assert calls == [0, 1, 2, 3, 2, 3, 4]
    assert np.allclose(losses, more, atol=1e-6)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(weights(whole).values(), weights(again).values()))
    with pytest.raises(ValueError, match="belongs to another training"):
        train_swap(**ask | dict(seed=1), checkpoint=file)


def test_a_cast_that_cannot_be_trained_is_refused(cast):
    with pytest.raises(ValueError, match="of every donor and of somebody else"):
        train_swap(list(cast), ["nobody"])
    with pytest.raises(ValueError, match="need 4 faces a step"):
        train_swap(list(cast), [cast[1].person], batch=3)
    with pytest.raises(ValueError, match="64 or 128 px, not 96"):
        Autoencoder(["a"], FaceFrame(np.zeros((68, 2))), 96)


@pytest.mark.parametrize("shared, size, bend", [(False, 128, True), (True, 64, False), (True, 64, True)])
def test_a_swap_is_made_from_a_plan_and_read_back(shared, size, bend, tmp_path, cast):
    plan = dict(size=size, donors=[20_001, 20_003], others=[] if shared else [20_019], shared=shared,
                bend=bend, frames=[12, 12], steps=2)
    net = make_swap(tmp_path/"tiny.safetensors", plan)
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.safetensors"]
    assert net.donors == ["20001", "20003"] and net.about["notes"]["plan"]["steps"] == 2
    assert net.bend == bend and net.shared == shared and net.size == size
    fakes = [swap_by_network(cast[0], net, donor) for donor in (20_001, 20_003)]
    assert (fakes[0].clip != fakes[1].clip).any()
    assert fakes[0].record["permitted"].startswith("both are rendered")
    assert "target_frames" in fakes[0].record and fakes[0].record["net"]["sha256"]


def test_a_bent_picture_is_the_donor_before_anything_is_learned(cast):
    here, there = cast
    net = train_swap(list(cast), [there.person], steps=1, batch=6, bend=True)[0]
    faces, _ = FaceFrame(net.points.double().numpy()).align(there.clip, there.landmarks, 64)
    drawn = net(torch.rand(1, 3, 64, 64), there.person)[0].detach().permute(1, 2, 0).numpy() * 255
    gap = [np.abs(drawn - face)[12:52, 12:52].mean() for face in faces]
    other, _ = FaceFrame(net.points.double().numpy()).align(here.clip, here.landmarks, 64)
    assert min(gap) < 12 < np.abs(drawn - other[0])[12:52, 12:52].mean()


def test_a_decoder_bends_its_picture_as_the_flow_says():
    picture = torch.rand(1, 3, 32, 32)
    still, right = torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 8, 8)
    right[:, 0] = 2 * 4 / 32  # the frame is two wide: four pixels further right
    assert torch.allclose(forge._bend(picture, still), picture, atol=1e-5)
    assert torch.allclose(forge._bend(picture, right)[..., :28], picture[..., 4:], atol=1e-4)


def test_damaged_weights_are_named(tmp_path, pair):
    file = tmp_path/"pair.safetensors"
    forge._save_swap(file, pair, False)
    good = file.read_bytes()
    for bad in (b"", b"not weights", good[:len(good)//2], good.replace(b'"swap"', b'"swop"')):
        file.write_bytes(bad)
        with pytest.raises(ValueError, match="pair.safetensors is damaged"):
            load_swap(file)


def test_network_settings_are_complete():
    assert all(set(NETWORK[grade]) == set(NETWORK["lq"]) for grade in GRADES)


# Papers


def test_papers_belong_to_their_file(cast, tmp_path):
    path = save_forgery(tmp_path/"a.mp4", swap_faces(*cast), fps=15)
    papers = read_provenance(path)
    assert papers["record"]["target"] == "20019" and papers["record"]["donor"] == "20001"
    assert {"what", "grade", "seed", "settings", "course", "target_frames", "donor_frames"} <= set(papers["record"])
    note = path.with_name("a.mp4.provenance.json")
    good = note.read_text()
    for bad in ("", "[]", "{}", good[:40], json.dumps(papers | {"record": None})):
        note.write_text(bad)
        with pytest.raises(ValueError, match="is damaged"):
            read_provenance(path)
    note.write_text(good)
    path.write_bytes(path.read_bytes()+b"\0")
    with pytest.raises(ValueError, match="or it was changed"):
        read_provenance(path)


def test_a_fake_is_written_as_a_real_clip_is(cast, tmp_path):
    fake = swap_faces(*cast)
    saved = save_forgery(tmp_path/"fake.mp4", fake, 15, 23)
    plain = write_clip(tmp_path/"plain.mp4", fake.clip, 15, 23)
    assert saved.read_bytes() == plain.read_bytes()


def test_mouths_are_measured_whatever_the_pose(cast):
    marks = cast[0].landmarks
    turn = np.array([[.6, -.8], [.8, .6]])*1.7
    assert np.allclose(mouth_opening(marks@turn+30), mouth_opening(marks))
    shut = marks.copy()
    shut[:, 60:68] = shut[:, 62:63]
    assert np.allclose(mouth_opening(shut), 0)


def test_a_mouth_is_stretched_about_what_is_usual_in_the_clip(cast):
    net = load_swap("B")
    faces, _ = FaceFrame(net.points.double().numpy()).align(cast[0].clip, cast[0].landmarks, net.size)
    x, donor = torch.from_numpy(faces).permute(0, 3, 1, 2)/255, net.donors[0]
    with torch.inference_mode():
        as_read, twice = net(x, donor), net(x, donor, 2)
        assert torch.equal(as_read, net(x, donor, 1))
        assert torch.allclose(net(x[:1], donor, 2), net(x[:1], donor), atol=1e-6)  # one frame is its own median
    more = twice.std(0).mean(0)-as_read.std(0).mean(0)
    mouth, eyes = more[80:96, 32:96].mean(), more[32:64, 32:96].mean()
    assert mouth > 2*eyes > 0  # of 128 px


@pytest.mark.parametrize("make", [swap_faces, reenact])
def test_a_forged_face_has_less_detail_than_the_camera_saw(make):
    def detail(clip, where):
        fine = [img-cv2.GaussianBlur(img, (0, 0), 1) for img in clip.astype(np.float32)]
        return float(np.abs(fine)[where].mean())
    here = shoot(20_019, 2, 256)  # a face wider than the texture
    quality = []
    for grade in GRADES[:2]:
        fake = make(here, here, grade, 3)
        quality.append(detail(fake.clip, fake.mask > .9)/detail(here.clip, fake.mask > .9))
    assert quality[0] < quality[1] < .8

"""What the lesson on rendering cannot show: awkward triangles, odd input, and draws that must never change."""
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial import Delaunay

from deepfake_course.rendering import (
    RANGES, Camera, conv_traces, draw_camera, expose, fetch_maps, project, rasterise, shake_path, splat, stream, tone,
)

ROOT = Path(__file__).resolve().parents[1]


def mesh(seed, spread, n=150):
    "Triangles that cover a square, all clockwise on the picture."
    rng = np.random.default_rng(seed)
    points = np.r_[[[0, 0], [spread, 0], [0, spread], [spread, spread]], rng.uniform(0, spread, (n, 2))]
    tiles = points[Delaunay(points).simplices]
    turn = np.linalg.det(tiles[:, 1:]-tiles[:, :1]) < 0
    tiles[turn] = tiles[turn][:, ::-1]
    return tiles


# streams

def test_streams_are_the_same_in_another_process():
    code = "from deepfake_course.rendering import stream; print(stream(7, 'skin').integers(0, 2**62, 4).tolist())"
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert eval(said.stdout) == stream(7, "skin").integers(0, 2**62, 4).tolist()


def test_streams_of_people_and_purposes_differ():
    first = {stream(seed, name).integers(0, 2**62) for seed in range(300) for name in ("skin", "hair", "beard")}
    assert len(first) == 900


def test_stream_takes_numpy_numbers():
    assert stream(np.int64(5), "a").random() == stream(5, "a").random()


# rasterise

@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("spread", [30, 61.37, 200])
def test_a_cut_up_square_has_no_cracks(seed, spread):
    tiles = mesh(seed, spread)
    pixel, triangle, weights, _ = rasterise(tiles, np.zeros(tiles.shape[:2]), 64, 64)
    side = min(63, int(spread))+1
    assert len(pixel) == side**2 == len(np.unique(pixel))
    places = (tiles[triangle]*weights[..., None]).sum(1)
    assert np.abs(places-np.stack(np.divmod(pixel, 64)[::-1], -1)).max() < 1e-6
    assert weights.min() > -1e-3 and np.allclose(weights.sum(1), 1)


def test_corners_on_pixel_centres_are_seen():
    pixel = rasterise(np.array([[[1., 1], [3, 1], [1, 3]]]), np.zeros((1, 3)), 5, 5)[0]
    assert sorted(map(tuple, np.stack(np.divmod(pixel, 5), -1).tolist())) == [
        (1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (3, 1)]


def test_backs_and_slivers_and_far_away_triangles_show_nothing():
    flat = np.array([[[1., 1], [5, 1], [9, 1]], [[2, 2], [2, 2], [2, 2]]])
    away = np.array([[[90., 90], [99, 90], [90, 99]], [[-9, -9], [-2, -9], [-9, -2]], [[-1e9, 3], [-1e8, 3], [-1e9, 4]]])
    back = np.array([[[1., 1], [1, 5], [5, 1]]])
    for tiles in (flat, away, back, np.zeros((0, 3, 2))):
        pixel, triangle, weights, z = rasterise(tiles, np.zeros(tiles.shape[:2]), 8, 8)
        assert len(pixel) == len(triangle) == len(z) == 0 and weights.shape == (0, 3)


def test_a_triangle_larger_than_the_picture_fills_it():
    pixel = rasterise(np.array([[[-1e5, -1e5], [1e5, -1e5], [0, 1e5]]]), np.zeros((1, 3)), 7, 9)[0]
    assert pixel.tolist() == list(range(63))


def test_the_nearest_wins_whatever_the_order():
    near, far = [[0., 0], [9, 0], [0, 9]], [[-5., -5], [20, -5], [-5, 20]]
    for order in ((0, 1), (1, 0)):
        tiles, depth = np.array([near, far])[list(order)], np.array([[5.]*3, [1.]*3])[list(order)]
        pixel, triangle, _, z = rasterise(tiles, depth, 6, 6)
        at = dict(zip(pixel.tolist(), zip(triangle.tolist(), z.tolist())))
        assert at[0] == (order.index(0), 5) and at[35][0] == order.index(1)


@pytest.mark.parametrize("corners, depth", [
    (np.zeros((4, 3)), np.zeros((4, 3))), (np.zeros((4, 3, 2)), np.zeros(4)), (np.zeros((2, 3, 3)), np.zeros((2, 3)))])
def test_wrong_shapes_are_refused(corners, depth):
    with pytest.raises(ValueError, match="rasterise needs"):
        rasterise(corners, depth, 5, 5)


# maps, points, projection

def test_maps_are_read_like_scipy():
    from scipy.ndimage import map_coordinates
    rng = np.random.default_rng(0)
    m, u, v = rng.random((40, 50, 4), np.float32), rng.uniform(0, 49, 777), rng.uniform(0, 39, 777)
    u, v = np.round(u*32)/32, np.round(v*32)/32  # OpenCV knows no finer places
    ours = fetch_maps([m, m[..., 0]], u, v)
    theirs = np.stack([map_coordinates(m[..., k], [v, u], order=1) for k in range(4)], -1)
    assert ours[0].shape == (777, 4) and ours[1].shape == (777, 1)
    assert np.abs(ours[0]-theirs).max() < 1e-6 and np.abs(ours[1]-theirs[:, :1]).max() < 1e-6
    assert fetch_maps([m], [], [])[0].shape == (0, 4)


def test_points_off_the_picture_or_hidden_leave_no_mark():
    depth = np.full((5, 6), -np.inf)
    depth[:, 3:] = 10
    points = np.array([[-1., 2], [6, 2], [2, -1], [2, 5], [4, 2], [1, 1]])
    colour, count = splat(points, np.array([0, 0, 0, 0, 5., 0]), np.ones((6, 3)), depth)
    assert count.sum() == count[1, 1] == 1 and colour.sum() == 3
    colour, count = splat(np.zeros((0, 2)), np.zeros(0), np.zeros((0, 3)), depth)
    assert not colour.any() and not count.any()


def test_points_behind_the_camera_are_refused():
    with pytest.raises(ValueError, match="behind the camera"):
        project(np.array([[0, 0, 500.]]), 300, (0, 0), 500)
    with pytest.raises(ValueError, match="behind the camera"):
        project(np.array([[0, 0, np.nan]]), 300, (0, 0), 500)


# camera

def test_the_same_state_gives_the_same_photograph():
    light, camera = np.random.default_rng(1).random((40, 30, 3)), draw_camera(stream(1))
    one, two = (expose(light, camera, stream(3), (2, 1)) for _ in range(2))
    assert (one == two).all() and one.shape == (40, 30, 3) and one.dtype == np.uint8
    assert (one != expose(light, camera, stream(4), (2, 1))).any()


def test_light_is_not_changed_by_being_photographed():
    light = np.full((20, 20, 3), .4, np.float32)
    for camera in (Camera(), Camera(psf=0, vignette=0)):
        expose(light, camera, stream(0))
        assert (light == np.float32(.4)).all()


@pytest.mark.parametrize("light", [np.zeros((4, 4)), np.zeros((4, 4, 4)), np.full((4, 4, 3), np.nan), np.full((4, 4, 3), -.1)])
def test_odd_light_is_refused(light):
    with pytest.raises(ValueError, match="finite light"):
        expose(light, Camera(), stream(0))


def test_black_and_glaring_light_stay_in_range():
    for level, low, high in ((0., 0, 40), (1e6, 255, 255)):
        img = expose(np.full((30, 30, 3), level), draw_camera(stream(0)), stream(1))
        assert low <= img.min() <= img.max() <= high


@pytest.mark.parametrize("grain", [0, .3, .75])
def test_grain_moves_noise_between_neighbours_but_keeps_its_variance(grain):
    camera = Camera(psf=0, vignette=0, shot=0, read=1e-4, grain=grain, contrast=0, sharpen=0)
    img = expose(np.full((400, 400, 3), .3), camera, stream(2))[..., 1].astype(float)
    step = 255*float(tone(.301)-tone(.299))/.002
    assert abs(img.var()/(1e-4*step**2+1/12)-1) < .05
    near = np.corrcoef(img[:, 1:].ravel(), img[:, :-1].ravel())[0, 1]
    assert (near < .02) == (grain < .31) and (near > .5) == (grain > .7)


@pytest.mark.parametrize("move", [(6, 0), (0, -6), (-3, 4)])
def test_motion_keeps_place_and_light(move):
    light = np.zeros((41, 41, 3))
    light[20, 20] = .5
    camera = Camera(psf=0, vignette=0, shot=0, read=0, contrast=0, sharpen=0, shutter=1)
    img = expose(light, camera, stream(0), move)[..., 0].astype(float)
    y, x = np.indices(img.shape)
    centre = np.array([(img*x).sum(), (img*y).sum()])/img.sum()
    assert np.abs(centre-20).max() < .05 and np.ptp(x[img > 20]) >= abs(move[0])-1


def test_lens_blur_is_opencvs():
    light = np.random.default_rng(5).random((50, 50, 3)).astype(np.float32)
    quiet = Camera(psf=1.3, vignette=0, shot=0, read=0, contrast=0, sharpen=0)
    theirs = 255*tone(cv2.GaussianBlur(light, (0, 0), 1.3, borderType=cv2.BORDER_REFLECT))
    assert np.abs(expose(light, quiet, stream(0))-theirs).max() <= .55


def test_cameras_stay_in_their_ranges():
    for seed in range(200):
        camera = draw_camera(stream(seed), psf=(2, 3), shake=0)
        assert camera.shake == 0 and 2 <= camera.psf <= 3
        assert all(low <= getattr(camera, name) <= high for name, (low, high) in RANGES.items()
                   if name not in ("psf", "shake"))


def test_a_hand_is_smooth_and_as_unsteady_as_asked():
    paths = [shake_path(Camera(shake=2.), stream(k), np.arange(0, 60, .02)) for k in range(10)]
    assert 1.6 < np.mean([path.std(0) for path in paths]) < 2.4
    assert max(np.abs(np.diff(path, axis=0)).max() for path in paths) < 1


# traces

@pytest.mark.parametrize("seed", range(3))
def test_traces_look_past_pixels_that_follow_nothing(seed):
    "Three of ten pixels are noise: expectation maximisation is exact, least squares is far off; without noise both are."
    rng = np.random.default_rng(seed)
    img = rng.integers(0, 256, (96, 96)).astype(float)
    asked, left, right = (img[2:-3:4, k : k - 5 : 4] for k in (2, 1, 3))
    mean, truth = (left + right) / 2, np.zeros(24)
    truth[[11, 12]] = 0.5
    asked[:] = np.where(rng.random(asked.shape) < 0.7, mean, asked)
    assert np.abs(conv_traces(img) - truth).max() < 0.01 < 0.1 < np.abs(conv_traces(img, turns=0) - truth).max()
    asked[:] = mean
    assert np.abs(conv_traces(img, turns=0) - truth).max() < 0.001


def test_traces_are_of_one_grey_picture():
    for img in (np.zeros((9, 9, 3)), np.zeros((4, 9))):
        with pytest.raises(ValueError, match="at least 5 x 5"):
            conv_traces(img)

"""What a lesson cannot show about video: odd files, damage, and frames that must not be mistaken."""
import os
import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from deepfake_course.core import hash_file, sample
from deepfake_course.video import (VideoError, iter_frames, needed_packets, open_video, pan, probe, psnr,
                                   read_frames, recompress, resize, sample_indices, scan, write_clip)

FRAMES = 90
ROOT = Path(__file__).resolve().parents[1]
REAL = Path(os.environ.get("DEEPFAKE_COURSE_REAL", ROOT.parent/"shared"/"real"))/"clips"


def read_number(img):
    "The number drawn into a frame: seven squares at the top left, lit or dark."
    return sum(1 << bit for bit in range(7) if img[12:24, 12+24*bit:24+24*bit].mean() > 127)


@pytest.fixture(scope="module")
def shot():
    "A moving texture, each frame with its number in it."
    texture = np.random.default_rng(1).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    still = texture.repeat(8, 0).repeat(8, 1)
    clip = pan(still, FRAMES, (320, 240), ((.3, .3, 1.5), (.7, .6, 2), (.4, .5, 1.2)), shake=3)
    for n, img in enumerate(clip):
        for bit in range(7):
            img[6:30, 6+24*bit:30+24*bit] = 255*(n >> bit & 1)
    return clip


def encode(path, clip, codec="libx264", pix_fmt="yuv420p", options=None, turn=0, milliseconds=None, container=None,
           audio=False, video=True):
    "Write a clip as other programs might, with PyAV alone."
    with av.open(str(path), "w", options=container or {}) as out:
        if audio:
            sound = out.add_stream("aac", rate=16000, layout="mono")
        if video:
            stream = out.add_stream(codec, rate=25, options=options or {})
            stream.height, stream.width = clip.shape[1:3]
            stream.pix_fmt = pix_fmt
            if milliseconds is not None:
                stream.codec_context.time_base = Fraction(1, 1000)
            if turn:
                stream.set_display_rotation(turn)
            for n, img in enumerate(clip):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(img), format="rgb24")
                if milliseconds is not None:
                    frame.pts, frame.time_base = int(milliseconds[n]), Fraction(1, 1000)
                out.mux(stream.encode(frame))
            out.mux(stream.encode())
        if audio:
            for n in range(20):
                tone = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
                tone.sample_rate, tone.pts = 16000, 1024*n
                out.mux(sound.encode(tone))
            out.mux(sound.encode())
    return path


FILES = {
    "plain.mp4": {}, "plain.mkv": {}, "plain.avi": {}, "plain.ts": {}, "raw.h264": {},
    "short groups.mp4": {"options": {"g": "12"}},
    "open groups.mp4": {"options": {"g": "12", "x264-params": "open-gop=1:bframes=5"}},
    "open groups no b.mp4": {"options": {"g": "12", "x264-params": "open-gop=1:bframes=0"}},
    "slices.mp4": {"options": {"g": "30", "x264-params": "slices=4"}},
    "fragments.mp4": {"options": {"g": "12"}, "container": {"movflags": "frag_keyframe+empty_moov"}},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"bf": "2", "g": "12"}},
    "mpeg4.mp4": {"codec": "mpeg4", "options": {"bf": "2", "g": "12"}},
    "mpeg2.mpg": {"codec": "mpeg2video", "options": {"bf": "2", "g": "12"}},
    "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "mjpeg.mov": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "hidden frames.webm": {"codec": "libvpx", "options": {"auto-alt-ref": "1", "lag-in-frames": "16", "g": "30",
                                                          "deadline": "good", "cpu-used": "5"}},
    "lossless.mkv": {"codec": "ffv1", "pix_fmt": "yuv444p"},
}


@pytest.mark.parametrize("name", FILES)
def test_the_right_frames_with_the_right_pixels(name, shot, tmp_path):
    path = encode(tmp_path/name, shot, **FILES[name])
    video, theirs = cv2.VideoCapture(str(path)), []
    while (got := video.read())[0]:
        theirs.append(cv2.cvtColor(got[1], cv2.COLOR_BGR2RGB))
    assert len(theirs) == probe(path).frames == FRAMES
    rng = np.random.default_rng(0)
    for n in (1, 1, 2, 5, 12, FRAMES):
        wanted = np.sort(rng.choice(FRAMES, n, replace=False))
        clip = read_frames(path, indices=wanted)
        assert [read_number(img) for img in clip.frames] == wanted.tolist() == clip.indices.tolist()
        assert not len(clip.missing)
        assert (clip.frames == np.array(theirs)[wanted]).all()


@pytest.mark.parametrize("turn", [90, -90, 180])
def test_rotation_flag(turn, shot, tmp_path):
    path = encode(tmp_path/"turned.mp4", shot[:20], turn=turn)
    clip, video = read_frames(path, indices=[3, 17]), cv2.VideoCapture(str(path))
    assert clip.info.rotation == -turn % 360
    assert (clip.info.width, clip.info.height) == ((240, 320) if abs(turn) == 90 else (320, 240))
    theirs = [cv2.cvtColor(video.read()[1], cv2.COLOR_BGR2RGB) for _ in range(20)]
    assert (clip.frames == np.array(theirs)[[3, 17]]).all()
    again = read_frames(recompress(path, tmp_path/"upright.mp4", 10), indices=[3, 17])
    assert again.info.rotation == 0 and psnr(again.frames, clip.frames) > 30


def test_rotation_flag_written_by_hand(shot, tmp_path):
    "A display matrix as phones write it, patched into the track header."
    path = write_clip(tmp_path/"phone.mp4", shot[:5])
    data = path.read_bytes()
    at = data.index(b"tkhd")+4+40
    assert struct.unpack(">9i", data[at:at+36]) == (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    path.write_bytes(data[:at]+struct.pack(">9i", 0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)+data[at+36:])
    clip = read_frames(path, 1)
    assert clip.info.rotation == 90 and clip.frames.shape == (1, 320, 240, 3)


def test_variable_frame_rate(shot, tmp_path):
    times = np.cumsum(np.r_[0, np.random.default_rng(0).integers(20, 200, FRAMES-1)])
    for name in ("uneven.mp4", "uneven.mkv"):
        path = encode(tmp_path/name, shot, milliseconds=times)
        clip = read_frames(path, 12)
        assert clip.info.variable_rate and clip.info.frames == FRAMES
        assert [read_number(img) for img in clip.frames] == clip.indices.tolist()
        assert np.allclose(clip.times, times[clip.indices]/1000, atol=.002)
    copy = read_frames(recompress(path, tmp_path/"copy.mp4", 18), 12)
    assert np.allclose(copy.times, clip.times, atol=.002)
    even = read_frames(recompress(path, tmp_path/"even.mp4", 18, fps=10), FRAMES, "first")
    assert not even.info.variable_rate
    shown = np.searchsorted(times, 1000*even.times+1e-3, "right")-1
    assert [read_number(img) for img in even.frames] == shown.tolist()


def test_no_variable_rate_where_a_clock_only_rounds(shot, tmp_path):
    info = probe(encode(tmp_path/"ntsc.mkv", shot, milliseconds=np.round(np.arange(FRAMES)*1001/30)))
    assert not info.variable_rate and abs(info.fps-30/1.001) < .01


@pytest.mark.parametrize("size", [(319, 239), (1, 1), (33, 2)])
def test_odd_sizes(size, shot, tmp_path):
    w, h = size
    clip = read_frames(write_clip(tmp_path/"odd.mp4", shot[:3, :h, :w]), 3)
    assert clip.frames.shape == (3, h+h % 2, w+w % 2, 3)
    assert psnr(clip.frames[:, :h, :w], shot[:3, :h, :w]) > 20
    clip = read_frames(encode(tmp_path/"odd.mkv", shot[:3, :h, :w], codec="ffv1", pix_fmt="bgr0"), 3)
    assert (clip.frames == shot[:3, :h, :w]).all()


def test_cut_off_file_gives_what_is_there(shot, tmp_path):
    path = write_clip(tmp_path/"whole.mp4", shot, gop=30)
    whole, data = read_frames(path, 30), path.read_bytes()
    for part in (.9, .5, .2):
        path.write_bytes(data[:int(part*len(data))])
        clip = read_frames(path, 30)
        assert clip.info.frames == FRAMES > clip.info.readable and clip.info.counted == "container"
        assert len(clip) and len(clip.missing)
        assert np.union1d(clip.indices, clip.missing).tolist() == whole.indices.tolist()
        assert (clip.frames == whole.frames[np.isin(whole.indices, clip.indices)]).all()
        assert set(clip.indices) >= {n for n in whole.indices if n < clip.info.readable-4}
    with pytest.raises(VideoError, match="none of the 1 frames"):
        read_frames(path, indices=[FRAMES-1])


@pytest.mark.parametrize("name", ["mp4", "mkv", "avi"])
def test_damage_is_missing_not_smeared(name, shot, tmp_path):
    "H.264 has no checksum: not all damage can be found, but most must be, and no index may slip."
    path = write_clip(tmp_path/f"whole.{name}", shot, gop=30)
    whole, data = read_frames(path, FRAMES).frames, path.read_bytes()
    found, smeared, kept = 0, 0, 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        at, count = int(rng.integers(len(data)//2, len(data)*3//4)), (4, 30, 400)[seed % 3]
        path.write_bytes(data[:at]+(rng.bytes(count) if seed % 2 else bytes(count))+data[at+count:])
        clip = read_frames(path, FRAMES)
        same = (clip.frames == whole[clip.indices]).all((1, 2, 3))
        found, smeared, kept = found+(len(clip) < FRAMES), smeared+(~same).sum(), kept+same.sum()
        assert same[clip.indices < 30].all()
    assert found >= 8 and smeared < kept/5


@pytest.mark.parametrize("what, says", [
    ("nothing here.mp4", "no such file"), ("empty.mp4", "0 bytes"), ("text.mp4", "not a video"),
    ("noise.mp4", "not a video"), ("no index.mp4", "no video stream"), ("no frame.mp4", "before its first frame"),
    ("sound.mp4", "no video stream"), ("sound.wav", "no video stream"), ("folder", "no such file")])
def test_what_is_no_video(what, says, shot, tmp_path):
    path = tmp_path/what
    data = write_clip(tmp_path/"good.mp4", shot[:20]).read_bytes()
    content = {"empty.mp4": b"", "text.mp4": b"I am a text.\n"*50, "no index.mp4": data[:300],
               "noise.mp4": np.random.default_rng(0).bytes(5000), "no frame.mp4": data[:data.index(b"mdat")+40]}
    if what in content:
        path.write_bytes(content[what])
    if what == "folder":
        path.mkdir()
    if what == "sound.mp4":
        encode(path, None, audio=True, video=False)
    if what == "sound.wav":
        with av.open(str(path), "w") as out:
            stream = out.add_stream("pcm_s16le", rate=8000, layout="mono")
            tone = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
            tone.sample_rate = 8000
            out.mux(stream.encode(tone))
    for way in (probe, read_frames):
        with pytest.raises(VideoError, match=says) as caught:
            way(path)
        assert "\n" not in str(caught.value) and str(tmp_path) not in str(caught.value)


def test_sound_beside_the_picture(shot, tmp_path):
    clip = read_frames(encode(tmp_path/"both.mp4", shot, audio=True), 10)
    assert [read_number(img) for img in clip.frames] == clip.indices.tolist()
    with av.open(str(recompress(tmp_path/"both.mp4", tmp_path/"mute.mp4", 30))) as out:
        assert not out.streams.audio


@pytest.mark.parametrize("name", ["Übung mit Lücken.mp4", "a:b.mp4", "100 %d.mp4", "-x.MP4", "日本.mkv", "file:x.mp4"])
def test_awkward_names(name, shot, tmp_path):
    folder = tmp_path/"Ein Ordner é"
    folder.mkdir()
    path = write_clip(folder/name, shot[:4])
    assert read_frames(str(path), 4).indices.tolist() == [0, 1, 2, 3]
    assert [file.name for file in folder.iterdir()] == [name]


def test_one_frame_and_a_picture(shot, tmp_path):
    assert len(read_frames(write_clip(tmp_path/"one.mp4", shot[:1]))) == 1
    cv2.imwrite(str(tmp_path/"picture.png"), shot[0][..., ::-1])
    clip = read_frames(tmp_path/"picture.png")
    assert (clip.frames[0] == shot[0]).all() and clip.info.frames == 1


def test_only_what_is_needed_is_decoded(shot, tmp_path):
    info, table = scan(write_clip(tmp_path/"groups.mp4", shot, gop=30))
    assert table["group"].nunique() == 3 and info.timed
    assert needed_packets(table, [0]).sum() == 1
    assert needed_packets(table, [45]).sum() < 17
    assert needed_packets(table, np.arange(FRAMES)).all()
    assert not needed_packets(table, []).any()
    assert list(iter_frames(tmp_path/"groups.mp4", [])) == []


def test_rules_of_sampling():
    rng = np.random.default_rng(0)
    for total in range(1, 130):
        for k in range(1, 40):
            at = sample_indices(total, k)
            assert len(at) == min(k, total) == len(np.unique(at)) and at[0] >= 0 and at[-1] < total
            assert len(at) == 1 or np.diff(at).max()-np.diff(at).min() <= 1
            assert abs(at[0]-(total-1-at[-1])) <= 1
    assert sample_indices(300, 25, "first").tolist() == list(range(25))
    assert sample_indices(95, how="every", step=10).tolist() == list(range(0, 95, 10))
    assert len(sample_indices(295, 30, "every", step=10)) == len(sample_indices(3000, 30, "every", step=10)) == 30
    drawn = sample_indices(400, 30, "random", share=.05, rng=rng)
    assert len(drawn) == 20 == len(np.unique(drawn)) and (np.diff(drawn) > 0).all()
    assert len(sample_indices(3, how="random", share=.05, rng=rng)) == 1
    for wrong in ({"k": 0}, {"total": 0}, {"how": "evenly"}, {"how": "every"}, {"how": "every", "step": 0},
                  {"how": "random", "share": .1}, {"how": "random", "share": 2, "rng": rng}, {"k": None}):
        with pytest.raises(ValueError):
            sample_indices(**{"total": 10, "k": 5} | wrong)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".avi"])
def test_same_frames_same_bytes(suffix, shot, tmp_path):
    junk, hashes = [], set()
    for n in range(4):
        junk.append(np.full(10**6+n*4567, n, np.uint8))
        hashes.add(hash_file(write_clip(tmp_path/f"{n}{suffix}", list(shot), crf=20, gop=50)))
    assert len(hashes) == 1


def test_a_failed_write_leaves_the_old_file(shot, tmp_path):
    path = write_clip(tmp_path/"clip.mp4", shot[:5])
    before = hash_file(path)

    def broken():
        yield from shot[:5]
        yield shot[5, :100]
    for frames, says in ((broken(), "one size"), ([], "no frames"), (shot[:2].astype(float), "uint8"),
                         (shot[:2, ..., 0], "uint8")):
        with pytest.raises(VideoError, match=says):
            write_clip(path, frames)
    with pytest.raises(VideoError, match="ends in"):
        write_clip(tmp_path/"clip.gif", shot)
    assert hash_file(path) == before and [file.name for file in tmp_path.iterdir()] == ["clip.mp4"]


def limit_file_size():
    import resource
    import signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))


@pytest.mark.skipif(sys.platform == "win32", reason="limits on file size are a Unix thing")
def test_a_full_disk_leaves_nothing_behind(tmp_path):
    code = ("import numpy as np, sys\nfrom deepfake_course.video import write_clip\n"
            "noise = np.random.default_rng(0).integers(0, 255, (30, 240, 320, 3), dtype=np.uint8)\n"
            "write_clip(sys.argv[1], noise)")
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path/"clip.mp4")], cwd=ROOT, text=True,
                          capture_output=True, preexec_fn=limit_file_size, timeout=120)
    assert done.returncode == 1 and "OSError" in done.stderr and list(tmp_path.iterdir()) == []


def test_recompress_in_place_small_and_slow(shot, tmp_path):
    path = write_clip(tmp_path/"clip.mp4", shot, fps=30000/1001)
    assert abs(probe(path).fps-30000/1001) < 1e-5
    size = path.stat().st_size
    assert recompress(path, path, 40) == path and path.stat().st_size < size/2
    info = probe(recompress(path, tmp_path/"small.mp4", scale=.3, fps=7))
    assert (info.width, info.height, info.frames) == (96, 72, 22)


def test_stops_after_the_last_wanted_frame(shot, tmp_path):
    "The first frames of a clip cost the same however the file goes on."
    with open_video(write_clip(tmp_path/"clip.mp4", shot)) as (stream, packets):
        assert next(packets).is_keyframe
    info, table = scan(tmp_path/"clip.mp4")
    assert np.flatnonzero(needed_packets(table, np.arange(5))).max() < 12


def test_sample_clip_is_what_the_lesson_makes():
    from skimage.data import astronaut
    views = ((.48, .36, 1.3), (.44, .26, 2.2), (.40, .30, 1.6), (.46, .27, 1.9))
    shot = pan(astronaut(), 100, (320, 320), views, shake=2, seed=7)
    clip = read_frames(sample("astronaut.mp4"), 100)
    assert clip.frames.shape == shot.shape and psnr(clip.frames, shot) > 35
    best = [max(range(100), key=lambda m: psnr(clip.frames[n], shot[m])) for n in (0, 33, 77)]
    assert best == [0, 33, 77]
    assert sample("astronaut.mp4").stat().st_size < 300_000


def test_pan_is_smooth_and_refuses_nothing_it_can_do(shot):
    still = pan(shot[0], 3, (100, 80), ((.5, .5, 1.2),))
    assert (still[0] == still[2]).all()
    flow = pan(np.indices((64, 64)).sum(0).astype(np.uint8)[..., None].repeat(3, 2), 50, (32, 32),
               ((.4, .5, 2), (.6, .5, 2)))[:, 16, 16, 0].astype(int)
    assert (np.diff(flow) >= -1).all() and np.abs(np.diff(flow)).max() <= 2


def test_resize_against_block_means(shot):
    blocks = shot[0].reshape(120, 2, 160, 2, 3).mean((1, 3))
    assert np.abs(resize(shot[0], 160)-blocks).max() <= .5
    assert resize(shot[0], (768, 380)).shape == (380, 768, 3)
    with pytest.raises(ValueError, match="0 x 5"):
        resize(shot[0], (0, 5))


@pytest.mark.parametrize("path", sorted(REAL.glob("*.mp4")) or [None], ids=lambda path: path.name if path else "none")
def test_real_clips_agree_with_opencv(path):
    if path is None:
        pytest.skip(f"no real clips: {REAL} is not there (set DEEPFAKE_COURSE_REAL)")
    total = probe(path).frames
    wanted = np.sort(np.random.default_rng(0).choice(min(total, 120), 8, replace=False))
    video, theirs = cv2.VideoCapture(str(path)), {}
    for n in range(wanted[-1]+1):
        video.grab()
        if n in wanted:
            theirs[n] = cv2.cvtColor(video.retrieve()[1], cv2.COLOR_BGR2RGB)
    clip = read_frames(path, indices=wanted)
    assert int(video.get(cv2.CAP_PROP_FRAME_COUNT)) == total and not len(clip.missing)
    assert all((img == theirs[n]).all() for n, img in zip(clip.indices, clip.frames))


@pytest.mark.parametrize("indices", [np.arange(20) < 3, [True, False], [1.5], [np.nan], ["1"]])
def test_indices_are_whole_numbers(indices, shot, tmp_path):
    path = write_clip(tmp_path/"a.mp4", shot[:20])
    for read in (lambda: read_frames(path, indices=indices), lambda: list(iter_frames(path, indices))):
        with pytest.raises(VideoError, match="np.flatnonzero"):
            read()
    assert read_frames(path, indices=[2., 1.]).indices.tolist() == [1, 2]


@pytest.mark.parametrize("settings", [{"k": 2.5}, {"k": 3, "how": "every", "step": 2.5}, {"k": 2.5, "how": "first"}])
def test_part_of_a_frame_cannot_be_sampled(settings):
    with pytest.raises(ValueError, match="whole numbers"):
        sample_indices(20, **settings)


@pytest.mark.parametrize("settings, message", [
    ({"times": [-3, -2, -1, 0, 1, 2]}, "0 or more"), ({"times": [0, 1, 1, 2, 3, 4]}, "strictly rising"),
    ({"times": [0, 1, 2, 3, 4, np.inf]}, "finite"), ({"times": np.arange(7)}, "too many"),
    ({"times": np.arange(5)}, "too few"), ({"times": []}, "too few"), ({"fps": 0}, "fps is from"),
    ({"fps": 1e9}, "fps is from"), ({"fps": np.nan}, "fps is from"), ({"fps": -5}, "fps is from")])
def test_impossible_times_are_refused(settings, message, shot, tmp_path):
    with pytest.raises(VideoError, match=message):
        write_clip(tmp_path/"a.mp4", shot[:6], **settings)
    assert not list(tmp_path.iterdir())


def test_avi_cannot_vary_its_rate(shot, tmp_path):
    phone = write_clip(tmp_path/"phone.mp4", shot[:6], times=[0, .1, .2, .9, 1, 1.7])
    for write in (lambda: write_clip(tmp_path/"a.avi", shot[:2], times=[0, 1]),
                  lambda: recompress(phone, tmp_path/"a.avi")):
        with pytest.raises(VideoError, match="use .mp4"):
            write()
    for fps in (0, 1e9, np.nan):
        with pytest.raises(VideoError, match="fps is from"):
            recompress(phone, tmp_path/"b.mp4", fps=fps)
    assert [p.name for p in tmp_path.iterdir()] == ["phone.mp4"]
    assert probe(recompress(phone, tmp_path/"c.mp4")).variable_rate
    slow = probe(recompress(phone, tmp_path/"c.avi", fps=10))
    assert slow.frames == int(np.ceil(10*probe(phone).duration))
